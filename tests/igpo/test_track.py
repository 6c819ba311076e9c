"""MLflow as a view of files: nothing twice, what changed is replaced, more iterations are appended."""

import json
import math
import os

import mlflow
import pytest
import results_tree
import yaml
from root import PARAMS_FILE

from igpo import track
from igpo.experiment import schema
from igpo.tracking import follow, store, traces
from pipeline import storage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def params() -> dict:
    values = yaml.safe_load(PARAMS_FILE.read_text())
    values["run"] |= {"arms": ["igpo"], "baselines": ["closed_book"], "seeds": [1, 2], "iterations": 2}
    return values


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("mlflow")
    return f"sqlite:///{folder}/mlflow.db"


@pytest.fixture
def log(params, uri, tmp_path, monkeypatch):
    """Track a results tree in a store of its own name; returns {run name: points} as MLflow holds them."""
    monkeypatch.chdir(tmp_path)  # artifacts go to ./mlruns
    monkeypatch.setattr(store, "NAME", tmp_path.name)
    results = results_tree.write_results(tmp_path / "results")
    storage.write_json({}, tmp_path / "tables" / "metrics.json")

    def run(**overrides):
        options = {
            "config": json.dumps(params),
            "tables": "tables",
            "uri": uri,
            "out": "track.json",
            **overrides,
        }
        track.main(results_tree.command(*results, **options))
        client, where = store.open_store(uri)
        runs = client.search_runs([where])
        return {each.info.run_name: store.points_of(client, each.info.run_id) for each in runs}

    return run


def test_one_run_per_arm_and_seed_with_metrics_by_iteration(log):
    runs = log()
    assert sorted(runs) == ["closed_book", "igpo_s1", "igpo_s2", "warmup"]
    points = runs["igpo_s1"]
    assert [points["train/f1", k] for k in (1, 2)] == pytest.approx([0.4, 0.5])
    assert points["train/flat_advantage", 1] == 0.25
    assert points["test/vitalqa/f1", 2] == pytest.approx(0.5)
    assert points["test/vitalqa/turn_limit", 2] == pytest.approx(0.5)
    assert runs["warmup"]["test/vitalqa/f1", 0] == pytest.approx(0.4)


def test_a_second_time_logs_nothing(log, uri):
    log()
    client, where = store.open_store(uri)

    def history():
        runs = client.search_runs([where])
        return {r.info.run_id: len(client.get_metric_history(r.info.run_id, "train/f1")) for r in runs}

    before = history()
    log()
    assert history() == before


def test_changed_numbers_replace_the_run(log, tmp_path):
    log()
    results_tree.write_iteration(tmp_path / "results", "igpo", 1, 2, 0.9)
    runs = log()
    assert len(runs) == 4
    assert runs["igpo_s1"]["train/f1", 2] == pytest.approx(0.9)


def test_more_iterations_are_appended_to_the_same_run(params, log, uri, tmp_path):
    log()
    client, where = store.open_store(uri)
    before = {run.info.run_id for run in client.search_runs([where])}
    folders = [results_tree.write_iteration(tmp_path / "results", "igpo", 1, 3, 0.6)]
    more = {**params, "run": {**params["run"], "iterations": 3}}
    path = results_tree.write_evaluation(
        tmp_path / "results", "igpo_s1", {"vitalqa": results_tree.block(0.8)}, 3
    )
    options = {"config": json.dumps(more), "tables": "tables", "uri": uri, "out": "track.json"}
    track.main(results_tree.command([path], folders, **options))
    assert {run.info.run_id for run in client.search_runs([where])} == before
    runs = {
        run.info.run_name: store.points_of(client, run.info.run_id) for run in client.search_runs([where])
    }
    assert [runs["igpo_s1"]["train/f1", k] for k in (1, 2, 3)] == pytest.approx([0.4, 0.5, 0.6])


@pytest.mark.parametrize(("section", "value"), [("train", {"kl": 0.5}), ("critic", {"lr": 0.5})])
def test_another_setting_makes_another_run(params, section, value):
    variant = store.run_params({**params, section: {**params[section], **value}}, "igpo_s1")
    assert store.run_key("igpo_s1", variant) != store.run_key("igpo_s1", store.run_params(params, "igpo_s1"))


def test_a_judge_and_its_settings_make_another_run_only_where_it_is_on(params):
    def key(**judge):
        variant = {**params, "judge": {**params["judge"], **judge}}
        return store.run_key("igpo_s1", store.run_params(variant, "igpo_s1"))

    assert key(temperature=0.7) == key()
    assert len({key(), key(model="smollm2"), key(model="other"), key(model="other", temperature=0.7)}) == 4


def test_more_parameters_than_one_batch_takes_are_all_there(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "NAME", tmp_path.name)
    client, where = store.open_store(uri)
    settings = {"many": {f"key{number}": number for number in range(250)}}
    run_id = store.sync(client, where, "igpo_s1", {("train/f1", 1): 0.5}, settings)
    assert len(client.get_run(run_id).data.params) == 250


def test_parameters_tables_and_configuration_are_there(params, log, uri):
    log()
    client, where = store.open_store(uri)
    run = next(run for run in client.search_runs([where]) if run.info.run_name == "igpo_s1")
    assert run.data.params["advantage.gamma"] == json.dumps(params["advantage"]["gamma"])
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"params.yaml", "tables"}


NAMES = [
    "dev(1)",
    "dev:281:29",
    "a/b",
    "a:2Fb",
    "..",
    ":2E.",
    "x@y,z%",
    "~",
    "a b",
    "é",
    "n" * 300,
    "n" * 299 + "m",
]


def test_any_benchmark_has_a_legal_name_of_its_own(uri):
    names = [store.metric_part(name) for name in NAMES]
    assert len(set(names)) == len(NAMES)
    client, where = store.open_store(uri)
    run_id = client.create_run(where).info.run_id
    for name in names:
        client.log_metric(run_id, f"test/{name}/f1", 1.0)
    assert set(client.get_run(run_id).data.metrics) == {f"test/{name}/f1" for name in names}
    assert store.metric_part("vitalqa_dev-1.0") == "vitalqa_dev-1.0"


def test_a_finished_run_stays_finished_while_something_else_is_made(params, log, uri, tmp_path):
    """As for `snakemake figures`. With a newer iteration it goes on, and has failed if nothing tracks it."""
    folders = [tmp_path / f"results/runs/igpo/s1/{k:03d}" for k in (1, 2)]
    credits = [results_tree.turn(t, reward=0.0, normalised=0.0, advantage=0.0) for t in (1, 2)]
    for folder in folders:
        storage.write(credits, schema.ADVANTAGES, folder / "advantages.parquet", schema.TURN_KEY)
    log(out="results/track.json")
    client, where = store.open_store(uri)

    def status(state: str) -> str:
        follow.log_runs(params, uri, {"igpo_s1": (folders, [])}, state)
        (run,) = client.search_runs([where], "attributes.run_name = 'igpo_s1'")
        return run.info.status

    assert [status("RUNNING"), status("FAILED")] == ["FINISHED", "FINISHED"]
    os.utime(folders[1] / "metrics.json", (2**31, 2**31))
    assert status("RUNNING") == "RUNNING"
    assert status("FAILED") == "FAILED"


def test_what_mlflow_stores_otherwise_is_no_change(uri, tmp_path, monkeypatch):
    """NaN equals nothing, infinity comes back as the largest number, and a long text is cut."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "NAME", tmp_path.name)
    client, where = store.open_store(uri)
    points = {("train/a", 1): math.nan, ("train/b", 1): -math.inf, ("train/c", 1): 1.0}
    settings = {"rollout": {"instructions": "x" * 7000}}
    first = store.sync(client, where, "small_step_s1", points, settings)
    assert store.sync(client, where, "small_step_s1", points, settings) == first
    assert store.sync(client, where, "small_step_s1", points | {("train/a", 1): 1.0}, settings) != first
    less = {("train/a", 1): 1.0}
    assert (
        store.points_of(client, store.sync(client, where, "small_step_s1", less, settings, "RUNNING")) != less
    )
    assert store.points_of(client, store.sync(client, where, "small_step_s1", less, settings)) == less
    data = client.get_run(first).data
    assert data.tags["igpo.arm"] == "small_step"
    other = dict(store.flatten({"rollout": {"instructions": "x" * 7001}}))["rollout.instructions"]
    assert len(data.params["rollout.instructions"]) == len(other) <= 6000
    assert data.params["rollout.instructions"] != other


def test_an_evaluation_of_a_later_policy_is_appended_and_of_an_earlier_one_replaces(
    uri, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "NAME", tmp_path.name)
    client, where = store.open_store(uri)

    def run_id(*steps):
        points = {("test/vitalqa/f1", step): 0.5 for step in steps}
        return store.sync(client, where, "igpo_s1", points, {})

    first = run_id(2)
    assert run_id(3) == first
    assert store.points_of(client, first) == {("test/vitalqa/f1", 2): 0.5, ("test/vitalqa/f1", 3): 0.5}
    second = run_id(2)
    assert second != first
    assert store.points_of(client, second) == {("test/vitalqa/f1", 2): 0.5}


def test_the_folders_of_the_longest_run_fit_into_its_tag(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "NAME", tmp_path.name)
    client, where = store.open_store(uri)
    run_id = client.create_run(where, tags={traces.TAG: '["a_long_name_of_an_arm/s1/001"]'}).info.run_id
    names = []
    monkeypatch.setattr(traces, "trajectories", lambda folder: [folder.name])
    monkeypatch.setattr(traces, "log_trace", lambda *words: names.append(words[2]))
    folders = [tmp_path / f"a_long_name_of_an_arm/s1/{number:03d}" for number in range(1, 1000)]
    for _ in range(2):
        traces.log_traces(client, where, run_id, folders)
    assert names == [f"a_long_name_of_an_arm/s1/{number:03d}" for number in range(2, 1000)]


def test_spans_have_the_times_of_the_rollout(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "NAME", tmp_path.name)
    timed, untimed = (results_tree.write_iteration(tmp_path, "igpo", 1, k, 0.5) for k in (1, 2))
    clock = [["q1", 0, [[100.0, 101.5, 101.75], [102.0, 104.0]]]]
    results_tree.write_cost(timed / "rollout.cost.json", 5.0, clock=clock)
    client, where = store.open_store(uri)
    run_id = client.create_run(where).info.run_id
    traces.log_traces(client, where, run_id, [timed, untimed])
    mlflow.flush_trace_async_logging()
    spans = {}
    for trace in client.search_traces(locations=[where]):
        agent, *others = trace.data.spans
        spans[agent.name.partition(":")[0]] = [
            (span.name, span.start_time_ns / 1e9, span.end_time_ns / 1e9) for span in (agent, *others)
        ]
    assert sorted(spans["igpo/s1/001"]) == [
        ("igpo/s1/001: q1", 100.0, 104.0),
        ("turn 1", 100.0, 101.75),
        ("turn 2", 102.0, 104.0),
        ("web_search", 101.5, 101.75),
    ]
    assert all(start > 1e9 for _, start, _ in spans["igpo/s1/002"]), "without times, those of the logging"
