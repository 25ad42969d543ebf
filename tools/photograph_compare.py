"""Photographs for the README: python tools/photograph_compare.py ORIGINAL.gguf OTHER.gguf docs/images [VOTES]

The compare page with an answered question, and the result of a blind test, both light and dark; and a chat with OTHER
as it stands in a terminal. Models, answers and numbers are real and of this run. So are the votes, but no person's: the
script takes the longer answer for the original. Needs playwright with a Chromium, pexpect and pyte.
"""

from __future__ import annotations

import html
import os
import shutil
import sys
import tempfile
import time
from itertools import groupby
from pathlib import Path

import pexpect
import pyte
from playwright.sync_api import Browser, Page, sync_playwright

import thriftbit

THREADS = 1  # as two wait for each other wherever something else runs as well
WIDTH, COLUMNS, LINES = 960, 92, 30
PATIENCE_SECONDS = 120
QUESTION = "Why is the sky blue? Explain it to a child in three sentences."
CHAT = ("What is a good name for a grey cat?", "/stats")
SUBJECTS = ("a lighthouse", "bread", "the moon", "a fox", "snow", "a violin", "tea", "a map", "the sea", "a garden")
TASKS = ("Write two sentences about {}.", "Tell a child what {} is.", "Name three things one can do with {}.")
SHADES = {"default": "inherit", "cyan": "#74cdc0", "green": "#74cdc0"}
TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body { margin: 0 } pre { margin: 0; padding: 1.1rem 1.4rem; background: #151514; color: #ece9e2; width: max-content;
font: 15px/1.45 "DejaVu Sans Mono", monospace }</style><pre>"""


def main(original: Path, other: Path, folder: Path, votes: int = 20) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as data, sync_playwright() as playwright:
        os.environ["THRIFTBIT_DATA"] = data  # a script's votes are nobody's, and end with it
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        photograph_chat(browser, other, folder)
        with thriftbit.compare([original, other], threads=THREADS) as compared:
            page = browser.new_page(viewport={"width": WIDTH, "height": 900}, device_scale_factor=1.15)
            page.goto(compared.address)
            ask(page, QUESTION, blind=False)
            photograph(page, folder, "compare", "body")
            for question in [task.format(subject) for task in TASKS for subject in SUBJECTS][:votes]:
                ask(page, question, blind=True)
                vote(page)
            photograph(page, folder, "blind", ".tallies")
            print(*compared.results(), sep="\n")
        browser.close()


def ask(page: Page, question: str, blind: bool) -> None:
    page.locator("#blind").set_checked(blind)
    page.locator("#longest").select_option("100")
    page.locator("#question").fill(question)
    page.locator("#question").press("Enter")
    page.get_by_role("heading", name=question, exact=True).wait_for()
    page.locator("#send:enabled").wait_for(timeout=1000 * PATIENCE_SECONDS)


def vote(page: Page) -> None:
    newest = page.locator(".round").first
    first, second = (len(text) for text in newest.locator(".text").all_inner_texts())
    page.locator(".vote").first.focus()
    page.keyboard.press("3" if first == second else "1" if first > second else "2")
    newest.locator(".verdict-line").wait_for()


def photograph(page: Page, folder: Path, name: str, start: str) -> None:
    """From there to the end of the newest round"""
    page.evaluate("scrollTo(0, 0)")
    first, last = page.locator(start).bounding_box(), page.locator(".round").first.bounding_box()
    assert first is not None and last is not None
    height = last["y"] + last["height"] - first["y"]
    clip = {"x": 0, "y": first["y"], "width": WIDTH, "height": height}
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.screenshot(path=folder / f"{name}-{theme}.png", full_page=True, clip=clip)


def photograph_chat(browser: Browser, model: Path, folder: Path) -> None:
    """A terminal of its own, typed into; what then stands on it, as a page"""
    command = ["chat", model.name, "--threads", str(THREADS), "--set", "temperature=0"]
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.Stream(screen)
    program = pexpect.spawn(
        sys.executable,
        ["-P", "-m", "thriftbit", *command],
        cwd=str(model.resolve().parent),
        env=os.environ | {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"},
        dimensions=(LINES, COLUMNS),
        encoding="utf-8",
    )
    for typed in CHAT:
        read_until_it_asks(program, screen, stream)
        program.send(f"{typed}\r")
        time.sleep(1)
    read_until_it_asks(program, screen, stream)
    program.close(force=True)
    lines = "\n".join("".join(styled(screen, line)).rstrip() for line in range(LINES)).rstrip()
    page = browser.new_page(viewport={"width": WIDTH, "height": 300}, device_scale_factor=1.5)
    page.set_content(f"{TERMINAL}$ thriftbit {html.escape(' '.join(command))}\n{lines}</pre>")
    page.locator("pre").screenshot(path=folder / "chat.png")


def read_until_it_asks(program: pexpect.spawn, screen: pyte.Screen, stream: pyte.Stream) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            stream.feed(program.read_nonblocking(4096, 1.0))
        except pexpect.TIMEOUT:
            if [line.strip() for line in screen.display if line.strip()][-1:] == [">"]:
                return
    raise SystemExit("\n".join(screen.display))


def styled(screen: pyte.Screen, line: int) -> list[str]:
    """Return a line of the terminal in HTML, in the colours of the report's dark page."""
    cells = [screen.buffer[line][column] for column in range(COLUMNS)]
    parts = []
    for (bold, colour), run in groupby(cells, key=lambda cell: (cell.bold, cell.fg)):
        text = html.escape("".join(cell.data for cell in run))
        style = f"color:{SHADES.get(colour, '#a8a297')};font-weight:{600 if bold else 400}"
        parts.append(f'<span style="{style}">{text}</span>' if text.strip() else text)
    return parts


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *map(int, sys.argv[4:5]))
