"""A table that several jobs made, and the whole one: the same bytes."""

import pytest
from small_index import call
from small_loop import loop_start, stage

from igpo import rollout, score
from igpo.experiment import join, schema, shards
from igpo.experiment.checks import check
from pipeline import storage
from pipeline.errors import UserError

ROLLOUT = {"engine": "transformers", "benchmarks": [], "questions": 5, "samples": 2, "max_turns": 2, "k": 1}
SCORE = {"batch_tokens": 300}  # about two questions of a pass


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The small loop's warm start, and five questions."""
    folder = loop_start(tmp_path_factory)
    rows = storage.read(folder / "questions.parquet", schema.QUESTIONS).to_pylist()
    questions = [{**rows[number % 2], "question_id": f"q{number}"} for number in range(5)]
    storage.write(questions, schema.QUESTIONS, folder / "five.parquet", schema.QUESTIONS_KEY)
    return folder


def played(start, out, *options, **over):
    files = ["--policy", start / "warm", "--questions", start / "five.parquet", "--index", start / "bm25"]
    stage(rollout.main, "rollout", *files, "--seed", 3, *options, "--out", out, **ROLLOUT | over)
    return out


def scored(start, rollouts, out, *options, **over):
    files = ["--policy", start / "warm", "--questions", start / "five.parquet", "--rollouts", rollouts]
    stage(score.main, "score", *files, "--reference", start / "base", *options, "--out", out, **SCORE | over)
    return out


def joined(name, parts, out):
    call(join.main, "--stage", name, "--shards", *parts, "--out", out)
    return out


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """Rollouts and scores that one job made."""
    folder = tmp_path_factory.mktemp("whole")
    rollouts = played(start, folder / "rollouts.parquet", at_once=4)
    return rollouts, scored(start, rollouts, folder / "scores.parquet")


@pytest.mark.parametrize("number", range(12))
@pytest.mark.parametrize("count", range(1, 6))
def test_shards_hold_every_item_once_and_in_order(number, count, params):
    from pipeline.sections import Score

    settings = Score(**params["score"] | {"shards": count})
    bounds = [shards.bounds(number, shard, settings) for shard in range(1, count + 1)]
    assert [item for low, high in bounds for item in range(low, high)] == list(range(number))
    assert max(high - low for low, high in bounds) - min(high - low for low, high in bounds) <= 1
    with pytest.raises(UserError, match=rf"--shard {count + 1}: expected 1 to {count} \(score.shards\)"):
        shards.bounds(number, count + 1, settings)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("exact", [True, False])
def test_joined_rollouts_are_those_of_one_job(start, whole, tmp_path, count, exact):
    """With three batches of two questions; the last two of five shards are empty then."""
    over = {"at_once": 4, "shards": count, "exact": exact}
    parts = [
        played(start, tmp_path / str(n) / "rollouts.parquet", "--shard", n, **over)
        for n in range(1, count + 1)
    ]
    table = joined("rollout", parts, tmp_path / "rollouts.parquet")
    assert table.read_bytes() == whole[0].read_bytes()
    sizes = [storage.read(path, schema.ROLLOUTS).num_rows for path in parts]
    assert sizes.count(0) == (2 if exact and count == 5 else 0)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("passes", ["packed", "naive"])
def test_joined_scores_are_those_of_one_job(start, whole, tmp_path, count, passes):
    alone = whole[1]
    if passes == "naive":
        alone = scored(start, whole[0], tmp_path / "scores.parquet", passes=passes)
    parts = [
        scored(
            start, whole[0], tmp_path / str(n) / "scores.parquet", "--shard", n, shards=count, passes=passes
        )
        for n in range(1, count + 1)
    ]
    assert joined("score", parts, tmp_path / "joined.parquet").read_bytes() == alone.read_bytes()


def test_costs_are_joined(start, whole, tmp_path):
    parts = [
        played(start, tmp_path / str(n) / "rollouts.parquet", "--shard", n, at_once=4, shards=2)
        for n in (1, 2)
    ]
    joined("rollout", parts, tmp_path / "rollouts.parquet")
    each = [storage.read_json(path.with_name("rollout.cost.json")) for path in parts]
    cost = storage.read_json(tmp_path / "rollout.cost.json")
    rows = storage.read(whole[0], schema.ROLLOUTS).to_pylist()
    assert cost["tokens"] == schema.tokens(rows)
    assert cost["seconds"] == sum(one["seconds"] for one in each)
    assert cost["phases"]["turns"] == sum(one["phases"]["turns"] for one in each)
    assert cost["device"] == each[0]["device"]
    assert [row[:2] for row in cost["clock"]] == [row[:2] for one in each for row in one["clock"]]


def test_shards_of_two_tables_are_one_line(start, tmp_path, capsys):
    parts = [
        played(
            start, tmp_path / str(n) / "rollouts.parquet", "--shard", n, shards=2, at_once=4, temperature=t
        )
        for n, t in ((1, 1.0), (2, 0.0))
    ]
    with pytest.raises(SystemExit):
        joined("rollout", parts, tmp_path / "rollouts.parquet")
    assert f"error: {parts[1]}: a shard of another table than {parts[0]}" in capsys.readouterr().err
    assert not (tmp_path / "rollouts.parquet").exists()


@pytest.mark.parametrize("section", ["rollout", "score"])
def test_more_shards_than_questions_are_one_error(params, section):
    params[section]["shards"] = 17
    with pytest.raises(UserError, match=rf"{section}.shards: 17 are more than the 16 questions"):
        check(params)


@pytest.mark.parametrize(
    "arm", [{"rollout": {"shards": 2}}, {"score": {"shards": 2}}, {"train": {"nodes": 2}}]
)
def test_an_arm_has_no_shards_or_nodes_of_its_own(params, arm):
    params["arms"]["igpo"] |= arm
    with pytest.raises(UserError, match=r"params: arms.igpo: \w+\.(shards|nodes) is one for all"):
        check(params)
