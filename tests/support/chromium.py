"""Pages in Debian's Chromium, through playwright: what they ask for and what they complain of is noted."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")


@contextlib.contextmanager
def opened(address: str, width: int = 1400) -> Iterator[Any]:
    """A page; `said` holds console messages, errors and dialogs, `asked` the addresses of its requests."""
    if not CHROMIUM:
        pytest.skip("NOT TESTED: pages in a browser; chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": width, "height": 900})
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("dialog", lambda dialog: page.said.append("a dialog"))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(address)
        yield page
        chromium.close()
