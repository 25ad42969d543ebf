"""Photographs a report for the README, light and dark: python tools/photograph_report.py report.html docs/images

Needs playwright and a Chromium. From the headline to the end of the chart, at twice the size, for sharp screens.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH = 1120


def main(page_file: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        for theme in ("light", "dark"):
            page = browser.new_page(viewport={"width": WIDTH, "height": 900}, device_scale_factor=2, color_scheme=theme)
            page.goto(page_file.resolve().as_uri())
            end = page.locator(".frontier").bounding_box()
            assert end is not None
            clip = {"x": 0, "y": 0, "width": WIDTH, "height": end["y"] + end["height"] + 24}
            page.screenshot(path=folder / f"report-{theme}.png", full_page=True, clip=clip)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
