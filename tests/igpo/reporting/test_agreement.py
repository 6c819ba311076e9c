"""Every number has one value: in tables and curves, on the page, in figures and in MLflow."""

import html
import json
import math
import re

import pytest
import results_tree
from root import PARAMS_FILE

from igpo import figures, report, tables
from igpo.reporting import plots
from igpo.reporting.cells import percent
from igpo.tracking import store
from pipeline.settings import read_params


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, base_model):
    """(folder with tables/, figures/ and report.html, evaluations, iterations, validations) of one tree."""
    folder, params = tmp_path_factory.mktemp("made"), read_params([PARAMS_FILE])
    params["run"] |= {"arms": ["igpo"], "baselines": ["closed_book"], "seeds": [1, 2]}
    evaluations, iterations = results_tree.write_results(folder / "results")
    validations = results_tree.write_validations(folder / "results")
    inputs = results_tree.write_asked(folder)
    words = results_tree.command(evaluations, iterations, *validations)
    tables.main([*words, "--config", json.dumps(params["tables"]), "--out", str(folder / "tables")])
    whole = results_tree.command(
        evaluations, iterations, *validations, config=json.dumps(params), policy=base_model, **inputs
    )
    report.main([*whole, "--out", str(folder / "report.html")])
    drawn = ["--iterations", *map(str, iterations), "--validations", *map(str, validations)]
    figures.main([*drawn, "--out", str(folder / "figures")])
    return folder, evaluations, iterations, validations


def test_the_page_s_lines_are_those_of_the_table(outputs):
    folder = outputs[0]
    page = [
        [html.unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", line)]
        for line in re.findall(r"<tr>(.*?)</tr>", (folder / "report.html").read_text())
    ]
    lines = re.findall(r"^\| (.*) \|$", (folder / "tables/main.md").read_text(), re.MULTILINE)
    cells = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    ours = [line for line in cells if line[0] in ("closed book", "warm start", "igpo")]
    assert len(ours) > 6  # results, details, where they come from
    assert not [line for line in ours if len(line) == len(ours[0]) and line not in page]


def test_the_table_s_cells_are_those_of_the_csv_file(outputs):
    text = (outputs[0] / "tables/main.md").read_text()
    for row in results_tree.read_csv(outputs[0] / "tables/main.csv"):
        if row["source"] == "ours":
            name = row["method"].replace("_", " ").replace("warmup", "warm start")
            assert re.search(rf"^\| {name} +\| +{percent(float(row['f1']))}", text, re.MULTILINE)


def test_mlflow_s_points_are_those_of_the_csv_files(outputs):
    folder, evaluations, iterations, validations = outputs
    runs = store.collect(evaluations, iterations, validations)
    for row in results_tree.read_csv(folder / "tables/curves.csv"):
        points = runs[f"{row['arm']}_s{row['seed']}"]
        for (name, step), value in points.items():
            kind, _, metric = name.partition("/")
            column = f"dev_{metric}" if kind == "dev" else metric
            at = row["updates"] if kind == "dev" else row["iteration"]
            if kind in ("train", "dev") and at == str(step) and row[column]:
                assert math.isclose(float(row[column]), value, rel_tol=1e-5), (name, step)
    table = results_tree.read_csv(folder / "tables/main.csv")
    ours = {row["method"]: row for row in table if row["source"] == "ours"}
    for method, run in (("closed_book", "closed_book"), ("warmup", "warmup")):
        (value,) = [value for (name, _), value in runs[run].items() if name == "test/vitalqa/f1"]
        assert float(ours[method]["f1"]) == pytest.approx(value)


def test_the_page_s_figures_are_the_files(outputs):
    page = (outputs[0] / "report.html").read_text()
    for name in plots.FIGURES:
        text = (outputs[0] / f"figures/{name}.svg").read_text()
        assert text[text.index("<svg") :] in page, name
