"""Pictures of a finished run's report -> docs/results/pictures: report.png, report_phone.png.

    python -m benchmarks.screenshots

Needs results/report.html and Chromium. The browser shows what an igpo policy was trained on.
"""

import argparse
from pathlib import Path

from playwright.sync_api import Page

from benchmarks.pages.chromium import chromium
from pipeline.errors import UserError

REPORT, OUT = Path("results/report.html"), Path("docs/results/pictures")
SIZES = {"report": (1200, 900), "report_phone": (390, 844)}
MOST_BYTES = 300_000


def show(page: Page) -> None:
    """Choose the right answer of igpo's training whose information gain is highest."""
    page.wait_for_selector("#browser[data-ready]")
    page.select_option("#filter-of", "training")
    page.select_option("#filter-method", "igpo")
    page.select_option("#filter-answer", "right")
    page.select_option("#filter-case", "highest information gain")
    page.click("#list button >> nth=0")
    page.evaluate("document.getElementById('browser').scrollIntoView()")


def main() -> None:
    """Take them."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    if not REPORT.exists():
        raise UserError(f"{REPORT}: no such file; snakemake makes it")
    with chromium() as browser:
        for name, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(REPORT.absolute().as_uri())
            show(page)
            path = OUT / f"{name}.png"
            page.screenshot(path=path)
            if path.stat().st_size > MOST_BYTES:
                raise UserError(f"{path}: {path.stat().st_size} bytes; at most {MOST_BYTES}")


if __name__ == "__main__":
    main()
