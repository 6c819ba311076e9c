"""The report's browser with 10,000 trajectories -> docs/results/browse.md.

    python -m benchmarks.browse

Needs a finished run in results/ and Chromium. The report's own page shows the run's trajectories, repeated
up to the number with their words in another order, so that they can't be stored as repeats; each filter is
timed in the page, from the choice to the new list's layout.
"""

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from benchmarks.pages.chromium import chromium
from benchmarks.pages.measure import machine
from igpo import report
from igpo.reporting import browser
from pipeline import storage
from pipeline.devices import compute_dtype
from pipeline.errors import UserError

OUT = Path("docs/results/browse.md")
RESULTS = Path("results")
GOALS = {"page, MB": 30.0, "from opening to the first list, s": 3.0, "slowest filter, ms": 300.0}
FILTER = """
([id, value]) => {
  const field = document.getElementById(id), start = performance.now();
  field.value = value;
  field.dispatchEvent(new Event(id === "words" ? "input" : "change"));
  document.body.getBoundingClientRect();
  return performance.now() - start;
}
"""


def varied(one: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """A trajectory with the words, tokens and log-probabilities of its turns in another order."""
    turns = []
    for turn in one["turns"]:
        words = {name: (turn[name] or "").split() for name in ("text", "read")}
        values = {name: list(turn[name]) for name in ("ids", "logprobs")}
        for items in (*words.values(), *values.values()):
            draw.shuffle(items)
        turns.append(turn | {name: " ".join(items) for name, items in words.items()} | values)
    return one | {"turns": turns, "sample": draw.randrange(10_000)}


def repeated(number: int) -> dict[str, Any]:
    """The browser's value of the run in results/, its trajectories repeated up to `number`."""
    folders = sorted(path.parent for path in RESULTS.glob("runs/*/s*/*/rollouts.parquet"))
    folders += sorted(path.parent for path in RESULTS.glob("evaluations/*/rollouts.parquet"))
    if not folders:
        raise UserError(f"{RESULTS}: no finished run; snakemake makes one")
    questions = browser.read_questions(sorted((RESULTS / "questions").glob("*.parquet")))
    value = browser.collect(folders, questions, RESULTS / "models/base")
    trajectories = value["trajectories"]
    draw = random.Random(0)
    value["trajectories"] = [varied(trajectories[place % len(trajectories)], draw) for place in range(number)]
    return value


def timed(page: Page, address: str) -> tuple[float, dict[str, float]]:
    """Seconds to the first list, and milliseconds of each filter, each the median of five."""
    start = time.perf_counter()
    page.goto(address)
    page.wait_for_selector("#browser[data-ready]")
    opening, filters = time.perf_counter() - start, {}
    choices = {"filter-of": "evaluation", "filter-answer": "wrong", "filter-case": "highest information gain"}
    for field, value in {**choices, "words": "born"}.items():
        empty = "" if field == "words" else "all"
        seconds = []
        for _ in range(5):
            seconds.append(page.evaluate(FILTER, [field, value]))
            page.evaluate(FILTER, [field, empty])
        filters[f"{field.removeprefix('filter-')}: {value}"] = statistics.median(seconds)
    return opening, filters


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trajectories", type=int, default=10_000, metavar="N")
    args = parser.parse_args()
    value = repeated(args.trajectories)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser_window:
        file = Path(folder) / "report.html"
        file.write_text(report.page({report.TRAJECTORIES: []}, value))
        opening, filters = timed(browser_window.new_page(), file.as_uri())
        size = file.stat().st_size / 1e6
    turns = statistics.fmean(len(one["turns"]) for one in value["trajectories"])
    made_on = f"{machine(compute_dtype())}, Chromium"
    figures = dict(zip(GOALS, (size, opening, max(filters.values())), strict=True))
    lines = []
    for name, goal in GOALS.items():
        verdict = "met" if figures[name] <= goal else "**missed**"
        lines.append(f"| {name} | ≤ {goal:g} | {figures[name]:.3g} | {verdict} |")
    lines += [f"| filter {name}, ms | | {number:.0f} | |" for name, number in filters.items()]
    with storage.replacing(OUT) as path:
        path.write_text(f"""\
# The report's browser with {args.trajectories:,} trajectories

Made by `python -m benchmarks.browse` from a finished run. Its trajectories, of {turns:.1f} turns on average,
are repeated up to this number with their words in another order. Made on: {made_on}.

| what | goal | measured | |
| --- | --- | ---: | --- |
{chr(10).join(lines)}
""")


if __name__ == "__main__":
    main()
