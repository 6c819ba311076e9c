"""The documentation as a site: it builds without a warning, and Chromium shows it as it should be."""

import subprocess
import sys
from pathlib import Path

import chromium
import pytest
from root import ROOT
from web import served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site; the build fails on a warning, as for a link that leads nowhere or a page in no menu."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return folder


@pytest.fixture(scope="module")
def address(site):
    with served(site) as address:
        yield address


@pytest.fixture
def page(address):
    """The site's first page; no page complains or asks another machine."""
    with chromium.opened(f"{address}/index.html") as page:
        yield page
        assert page.said == []
        assert [url for url in page.asked if not url.startswith(address)] == []


def test_every_page_opens(page, site, address):
    names = [path.relative_to(site).as_posix() for path in site.rglob("*.html") if path.name != "404.html"]
    assert len(names) > 40
    for name in names:
        page.goto(f"{address}/{name}")
        assert page.inner_text("h1").strip("¶ ")


def test_formulas_are_formulas(page, address):
    page.goto(f"{address}/method.html")
    assert page.locator("math").count() > 20
    assert page.locator("math[display=block]").first.bounding_box()["height"] > 20
    assert "$" not in page.inner_text("article")


def test_words_are_found(page):
    page.click(".md-search__input")
    page.keyboard.type("counterfactual")
    page.wait_for_selector(".md-search-result__item")
    assert "IG-Search" in page.inner_text(".md-search-result__list")


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(page, address, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    for name in ("index", "method", "metrics", "differences", "results/seeds", "methods/igpo"):
        page.goto(f"{address}/{name}.html")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
