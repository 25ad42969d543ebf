"""The report's page in a real browser: what it looks like, that nothing overflows, and that strangers' text is inert.

The browser is the system's Chromium or Chrome, driven by playwright. Screenshots are in the tests' temporary folders.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page

from thriftbit.report import write_report
from unit.report import rows as made_up

WIDTHS = (360, 820, 1440)
Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = ("light", "dark")
LAYOUT_PROBLEMS = Path(made_up.__file__).with_name("layout_problems.js").read_text(encoding="utf-8")
SELECTED_CARD = ".card.shown"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(made_up.example_rows(), tmp_path_factory.mktemp("page") / "report.html")


@contextmanager
def opened(browser: Browser, file: Path, width: int, theme: Theme = "light", script: bool = True) -> Iterator[Page]:
    """Yield the page; afterwards it has loaded nothing but itself, and the browser has complained about nothing."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=theme,
        java_script_enabled=script,
    )
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    yield page
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [file.as_uri()]
    context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_everything_fits_and_can_be_read(browser: Browser, example: Path, width: int, tmp_path: Path) -> None:
    with opened(browser, example, width) as page:
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            page.screenshot(path=tmp_path / f"report-{width}-{theme}.png", full_page=True)
        page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true })")
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            assert page.evaluate(LAYOUT_PROBLEMS) == [], theme


CASES = {
    "hostile": made_up.hostile_rows,
    "many files": made_up.crowded_rows,
    "long names": made_up.same_level_rows,
    "one file alone": made_up.lonely_rows,
    "accuracy alone": made_up.accuracy_only_rows,
}


@pytest.mark.parametrize("width", (360, 1440))
@pytest.mark.parametrize("case", CASES)
def test_unusual_rows_fit_as_well(browser: Browser, case: str, width: int, tmp_path: Path) -> None:
    file = write_report(CASES[case](), tmp_path / "report.html")
    with opened(browser, file, width) as page:
        page.screenshot(path=tmp_path / f"{case}-{width}.png", full_page=True)
        assert page.evaluate(LAYOUT_PROBLEMS) == []


def test_text_of_strangers_stays_text(browser: Browser, tmp_path: Path) -> None:
    file = write_report(made_up.hostile_rows(), tmp_path / "report.html")
    with opened(browser, file, 1440) as page:
        assert page.evaluate("window.pwned") is None
        assert page.locator("script").count() == 1 and page.locator("style").count() == 1
        assert page.locator("img, iframe, object, embed, link[rel=stylesheet]").count() == 0
        text = page.locator("body").inner_text()
        assert "<script>window.pwned = 1</script>" in text and "{{ 7 * 7 }}" in text
        assert "\\u202e" in text and "\\x1b" in text and "\\ud800" in text
        assert not {"\u202e", "\u2066", "\x1b", "\x00"} & set(page.content())


def test_a_mouse_a_finger_and_a_keyboard_reach_every_point(browser: Browser, example: Path) -> None:
    with opened(browser, example, 1440) as page:
        points = page.locator(".drawing.wide .point")
        names = [points.nth(n).get_attribute("aria-label") or "" for n in range(points.count())]
        assert [name.partition(":")[0] for name in names] == [level for level, *_ in made_up.LEVELS]
        assert page.locator(SELECTED_CARD).inner_text().startswith("Q4_K_M")

        reached = []
        for _ in range(30):
            page.keyboard.press("Tab")
            label = page.evaluate("document.activeElement.matches('.point') ? document.activeElement.ariaLabel : ''")
            if label:
                reached.append(label)
                assert page.locator(SELECTED_CARD).inner_text().startswith(label.partition(":")[0])
        assert reached[: len(names)] == names

        points.first.locator(".marker").hover()
        assert page.locator(SELECTED_CARD).inner_text().startswith("Q8_0")
        points.last.locator(".marker").click()
        assert page.locator(SELECTED_CARD).inner_text().startswith("Q2_K")
        assert page.locator(SELECTED_CARD).count() == 1
        assert page.url == example.as_uri()


def test_what_has_the_focus_shows_it(browser: Browser, example: Path) -> None:
    with opened(browser, example, 1440) as page:
        seen = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            kind, shown = page.evaluate(
                """() => {
                    const element = document.activeElement;
                    const style = getComputedStyle(element.matches("input") ? element.parentElement : element);
                    const halo = element.querySelector(".halo");
                    const ring = halo ? getComputedStyle(halo).strokeWidth === "3px" : style.outlineStyle === "solid";
                    return [element.tagName, ring || element.matches(".skip")];
                }"""
            )
            if kind == "BODY":  # past the last one, before it begins again
                break
            seen.add(kind)
            assert shown, f"{kind} has the focus and does not show it"
        assert {"A", "a", "BUTTON", "INPUT", "SUMMARY"} <= seen


def test_the_theme_follows_the_system_until_it_is_chosen(browser: Browser, example: Path) -> None:
    def paper(page: Page) -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    with opened(browser, example, 820, "light") as light, opened(browser, example, 820, "dark") as dark:
        papers = paper(light), paper(dark)
        assert papers[0] != papers[1]
        light.get_by_role("button", name="Dark theme").click()
        dark.get_by_role("button", name="Light theme").click()
        assert (paper(light), paper(dark)) == papers[::-1]
        light.get_by_role("button", name="Light theme").click()
        assert paper(light) == papers[0]


def test_answers_are_compared_with_the_file_that_is_chosen(browser: Browser, example: Path) -> None:
    with opened(browser, example, 820) as page:
        prompt = page.locator(".prompt").first
        assert prompt.locator(".pair:visible").count() == 1
        assert prompt.locator(".pair:visible ins").first.inner_text() == "all the colors of the rainbow."
        assert prompt.locator(".pair:visible del").first.inner_text() == "many colors."
        page.get_by_role("radio", name="Q8_0").check()
        assert prompt.locator(".pair:visible ins, .pair:visible del").count() == 0
        assert "Both wrote the same" in prompt.inner_text()


def test_commands_can_be_copied(browser: Browser, example: Path) -> None:
    with opened(browser, example, 820) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.locator(".copy").first.click()
        page.get_by_role("button", name="Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == made_up.ACCURACY_COMMAND


def test_without_its_script_everything_is_there(browser: Browser, example: Path) -> None:
    with opened(browser, example, 820, script=False) as page:
        assert page.locator(".card:visible").count() == len(made_up.LEVELS)
        assert page.locator("button:visible").count() == 0
        assert page.locator(".drawing.wide .point title").count() == len(made_up.LEVELS)
        assert page.locator(".prompt").first.locator(".pair:visible").count() == 1
        page.locator(".drawing.wide .point .marker").first.click()
        assert page.url.endswith("#file-0")


def test_a_screen_reader_finds_its_way(browser: Browser, example: Path) -> None:
    with opened(browser, example, 820) as page:
        assert page.get_by_role("main").count() == page.get_by_role("navigation").count() == 1
        assert page.get_by_role("heading", level=1).inner_text().startswith("Q4_K_M is 68% smaller")
        headings = page.locator("h1, h2, h3").evaluate_all("(all) => all.map((heading) => heading.tagName)")
        levels = [int(tag[1]) for tag in headings]
        assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
        assert page.locator("table:not(:has(caption)):not(.facts-table)").count() == 0
        table = page.get_by_role("table", name="Every file, the largest first")
        assert table.get_by_role("row").count() == 1 + 1 + len(made_up.LEVELS)
        anchors = page.evaluate("[...document.querySelectorAll('a[href^=\"#\"]')].map((a) => a.getAttribute('href'))")
        assert all(page.locator(f"[id='{anchor[1:]}']").count() == 1 for anchor in anchors)
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
        assert len(ids) == len(set(ids))


def test_it_prints_without_what_paper_cannot_do(browser: Browser, example: Path) -> None:
    with opened(browser, example, 820, "dark") as page:
        page.emulate_media(media="print")
        assert page.locator("nav:visible, button:visible, fieldset:visible").count() == 0
        assert page.locator(".pair:visible").count() == len(made_up.PROMPTS) * len(made_up.LEVELS)
        assert page.pdf().startswith(b"%PDF")
