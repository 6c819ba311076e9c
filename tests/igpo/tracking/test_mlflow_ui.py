"""What `mlflow ui` shows in Chromium: curves at the README's address, traces with their searches."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from urllib.error import URLError

import chromium
import pytest
import results_tree
from root import PARAMS_FILE, ROOT
from web import free_ports

from igpo.experiment import schema
from pipeline import storage
from pipeline.settings import read_params

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=alert(1)> \u202egnihton\u202c \x1b[31mred & <b>" + "long " * 20_000
START_S = 120


def make_hostile(folder) -> None:
    """Let a trajectory's search, observation and answer be hostile."""
    path = folder / "rollouts.parquet"
    rows = storage.read(path, schema.ROLLOUTS).to_pylist()
    rows[1] |= {"queries": [HOSTILE], "observation": HOSTILE}
    rows[2]["answer"] = HOSTILE
    storage.write(rows, schema.ROLLOUTS, path, schema.TURN_KEY)


@pytest.fixture(scope="module")
def ui(tmp_path_factory):
    """The address of `mlflow ui`, started without arguments but for a port in a folder with logged runs."""
    folder, params = tmp_path_factory.mktemp("ui"), read_params([PARAMS_FILE])
    evaluations, folders = results_tree.write_results(folder / "results")
    folders += [results_tree.write_iteration(folder / "results", "grpo", 1, k, 0.2 * k) for k in (1, 2)]
    make_hostile(folders[0])
    storage.write_json({}, folder / "tables/metrics.json")
    params["run"] |= {"arms": ["igpo", "grpo"], "baselines": ["closed_book"], "seeds": [1, 2]}
    words = results_tree.command(evaluations, folders, config=json.dumps(params), tables="tables")
    command = [sys.executable, "-m", "igpo.track", *words, "--out", "track.json"]
    subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    (port,) = free_ports(1)
    server = subprocess.Popen([sys.executable, "-m", "mlflow", "ui", "--port", str(port)], cwd=folder)
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(f"{address}/health")
            break
        except URLError:
            assert time.monotonic() < end
            time.sleep(0.5)
    yield address
    server.terminate()
    server.wait()


@pytest.fixture
def page(ui):
    """Its start page; nothing asks another machine, and no script of a document runs."""
    with chromium.opened(ui) as page:
        yield page
        assert [address for address in page.asked if not address.startswith((ui, "data:", "blob:"))] == []
        assert "a dialog" not in page.said


def test_the_readme_s_address_opens_the_curves_of_both_arms(page, ui):
    (place,) = set(
        re.findall(r"http://127.0.0.1:5000(/#/experiments/\S+?)`", (ROOT / "README.md").read_text())
    )
    page.goto(f"{ui}{place}")
    page.wait_for_selector("text=test/vitalqa")
    page.wait_for_selector(".js-plotly-plot")
    for name in ("igpo_s1", "igpo_s2", "grpo_s1"):
        page.wait_for_selector(f"text={name}")


def test_the_first_click_does_not_end_on_an_empty_page(page):
    page.click("a:text-is('igpo')")
    page.wait_for_function("/Traces\\s+[1-9]/.test(document.body.innerText)")


def test_a_trace_shows_its_searches_and_hostile_text_as_text(page, ui):
    page.goto(f"{ui}/#/experiments/1/traces")
    page.click("text=Got it")
    page.click("text=onerror >> nth=0")
    page.locator("text=web_search").dispatch_event("click")  # the drawer's handle lies over it
    page.wait_for_selector("text=nihton")
    assert "<img src=x onerror=alert(1)>" in page.inner_text("body")
    assert page.locator("img[src=x]").count() == 0
