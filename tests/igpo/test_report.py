"""The report: one page, nothing from elsewhere, every trajectory in a browser of its own."""

import base64
import gzip
import json
import re
from pathlib import Path

import chromium
import pandas as pd
import pytest
import results_tree

from igpo import report
from igpo.experiment import schema
from igpo.reporting import browser, plots
from igpo.reporting.results import Evaluation
from pipeline import storage

HOSTILE = "</script><img src=x onerror=alert(1)> \u202egnihton\u202c \x1b[31mred \x00 & <b>"


@pytest.fixture
def small_report(tmp_path, params, base_model):
    """A report of two seeds with validations, whose question is hostile."""
    params["run"] |= {"arms": ["igpo", "grpo"], "baselines": ["closed_book"], "seeds": [1, 2]}
    evaluations, folders = results_tree.write_results(tmp_path / "results")
    validations = results_tree.write_validations(tmp_path / "results")
    options = results_tree.write_asked(tmp_path, HOSTILE)
    options |= {"config": json.dumps(params), "policy": base_model}
    words = results_tree.command(evaluations, folders, *validations, **options)
    report.main([*words, "--out", str(tmp_path / "report.html")])
    return words, tmp_path / "report.html"


def shown(path: Path) -> dict:
    """What the browser of a page gets."""
    packed = re.search(r'id="trajectories">([^<]*)<', path.read_text())[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_it_is_one_page_without_anything_from_elsewhere(small_report, tmp_path):
    words, path = small_report
    text = path.read_text()
    assert text.count("<svg") == 2 + len(plots.FIGURES)
    assert "F1+IG step 60" in text and "read by eye" in text
    assert not re.search(r"(?:src|href)=[\"'](?!#)|@import|<link", text.replace("xlink:href", "href"))
    assert "default-src 'none'" in text
    assert text.index(">Dev questions, greedy<") < text.index(">Training curves<")
    assert re.search(r'<th scope="col">one hop \(2\)</th>.*<th scope="col">two hops \(2\)</th>', text)
    report.main([*words, "--out", str(tmp_path / "again.html")])
    assert (tmp_path / "again.html").read_text() == text


def test_settings_that_differ_stand_ahead_of_all(small_report):
    text = small_report[1].read_text()
    assert text.index("advantage.method") < text.index("All parameters")
    assert re.search(r"<td>advantage.method</td><td>igpo</td><td>grpo</td>", text)


def test_every_evaluation_has_a_column_of_what_it_was_made_from(small_report):
    text = small_report[1].read_text()
    table = text[text.index("Where the numbers come from</h2>") :].partition("</table>")[0]
    heads = re.findall(r'<th scope="col">([^<]*)</th>', table)
    assert heads == ["made from", "closed book", "warm start", "igpo s1", "igpo s2"]
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in table.split("<tr>")]
    cells = {row[0]: row[1:] for row in rows if row}
    assert cells["policy"] == ["closed_book policy", "warmup policy", "igpo_s1 policy", "igpo_s2 policy"]
    assert cells["iteration"] == ["–", "0", "2", "2"]
    assert cells["code of rollout"] == ["1a"] * 4


def test_a_column_names_its_seed_also_seed_0():
    named = [report.column_name(Evaluation("igpo", seed, {}, pd.DataFrame())) for seed in (None, 0, 1)]
    assert named == ["igpo", "igpo s0", "igpo s1"]


def test_an_arm_without_settings_of_its_own_differs_in_none(params):
    params["arms"]["mine"], params["run"]["arms"] = None, ["mine"]
    assert report.settings_part(params)[0].text == "All parameters"


def test_its_trajectories_are_those_of_the_tables(small_report):
    data = shown(small_report[1])
    kinds = [source["kind"] for source in data["sources"]]
    assert (kinds.count("training"), kinds.count("validation"), kinds.count("evaluation")) == (4, 3, 4)
    assert data["sources"][0] == {"kind": "training", "arm": "igpo", "seed": 1, "iteration": 1}
    assert data["questions"]["q1"]["question"] == HOSTILE
    assert len(data["trajectories"]) == 11
    first, last = data["trajectories"][0], data["trajectories"][-1]
    assert (first["start"], first["outcome"], first["found"], first["f1"]) == (-2.0, 0.4, 1, 1.0)
    search, answer = first["turns"]
    assert (search["gold"], search["gain"], search["reward"]) == (-1.5, 0.5, 0.5)
    assert search["hits"] == [["a<b", 1]]
    assert (answer["gold"], answer["hits"], answer["logprobs"]) == (None, [], [-1.0])
    assert (last["outcome"], last["start"], last["turns"][0]["gain"]) == (None, None, None)
    assert set(data["vocabulary"]) == {"3", "5"}


def test_a_question_that_was_not_given_is_one_line(small_report, tmp_path, capsys):
    words, _ = small_report
    question = {"question_id": "other", "benchmark": "b", "question": "?", "answers": ["x"]}
    question |= {"supporting_ids": [], "hops": 1, "split": "train", "type": ""}
    storage.write([question], schema.QUESTIONS, tmp_path / "other.parquet", ("question_id",))
    words[words.index("--questions") + 1] = str(tmp_path / "other.parquet")
    with pytest.raises(SystemExit) as end:
        report.main([*words, "--out", str(tmp_path / "out.html")])
    assert end.value.code == 2
    assert "question 'q1' is in none of the --questions" in capsys.readouterr().err
    assert not (tmp_path / "out.html").exists()


def test_a_first_iteration_that_arms_share_counts_once(tmp_path):
    folders = [results_tree.write_iteration(tmp_path, arm, 1, 1, 0.5) for arm in ("igpo", "grpo")]
    folders.append(results_tree.write_iteration(tmp_path, "grpo", 1, 2, 0.5))
    for number, folder in enumerate(folders):
        results_tree.write_cost(folder / "rollout.cost.json", 2.0, ended=float(number == 2), tokens=10)
    (table,) = report.time_part(folders)
    assert table.cells[0][:4] == ["rollout", "2", "4", "20"]
    sources = [{"seed": 1, "iteration": k} for k in (1, 1, 2)]
    one = {
        "question": "q",
        "sample": 0,
        "outcome": 1.0,
        "start": -2.0,
        "turns": [{"gain": 0.5}, {"gain": None}],
    }
    trajectories = [{**one, "source": number} for number in range(3)]
    assert browser.gains({"sources": sources, "trajectories": trajectories}) == [([0.5], 1.0)] * 2


def test_packed_values_are_equal_and_stand_any_text():
    value = {"text": HOSTILE + "\ud800"}
    assert browser.pack(value) == browser.pack(value)
    assert not set(browser.pack(value)) & set("<>&")


@pytest.fixture
def page(small_report):
    """The report in Chromium; it asks for nothing else and complains of nothing."""
    with chromium.opened(small_report[1].as_uri()) as page:
        page.wait_for_selector("#browser[data-ready]")
        yield page
        assert page.said == []
        assert page.asked == [small_report[1].as_uri()]


@pytest.mark.slow
def test_filters_choose_trajectories(page):
    assert page.inner_text("#count") == "1 to 11 of 11 trajectories"
    page.select_option("#filter-of", "training")
    assert page.inner_text("#count") == "1 to 4 of 4 trajectories"
    page.select_option("#filter-iteration", "2")
    assert page.inner_text("#count") == "1 to 2 of 2 trajectories"
    page.fill("#words", "nowhere")
    assert page.inner_text("#count") == "no trajectory matches"
    page.fill("#words", "ROME IS OLD")
    assert page.inner_text("#count") == "1 to 2 of 2 trajectories"


@pytest.mark.slow
def test_hostile_text_shows_as_text(page):
    heading = page.inner_text("#shown h4")
    assert "<img src=x onerror=alert(1)>" in heading and "& <b>" in heading
    assert page.query_selector("#shown img") is None


@pytest.mark.slow
def test_a_trajectory_says_what_its_turns_were_worth(page):
    text = page.inner_text("#shown")
    assert "information gain +0.50 · step reward +0.50" in text
    assert "gold answer 14 % → 22 %" in text
    assert "a<b ★ supports the answer" in text
    page.click("#shown .small >> nth=0")
    assert page.get_attribute("#shown .token", "title") == "log-probability -1.00"
    assert page.inner_text("#shown .unlearned") == "Rome is old"
    page.click("#shown .small >> nth=0")
    assert page.inner_text("#shown .turn pre >> nth=0") == "<think>"


@pytest.mark.slow
def test_the_same_question_stands_side_by_side(page):
    page.select_option("#shown select", "0")
    assert page.is_visible("#beside h4")
    boxes = [page.locator(place).bounding_box() for place in ("#shown", "#beside")]
    assert boxes[0]["x"] < boxes[1]["x"] and boxes[0]["y"] == boxes[1]["y"]


@pytest.mark.slow
def test_the_keyboard_reaches_the_list(page):
    page.focus("#list button >> nth=0")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.number") == "1"
    assert page.get_attribute("#list button >> nth=1", "aria-current") == "true"


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(page, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
