"""Scores against a slow reference that runs one forward pass per turn."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from scored_rows import GOLDS, context, naive_gold, rollout, stage_words
from small_qwen import tokenizer
from tiny import tiny

from igpo import score
from igpo.credit.step_rewards import Evidence
from igpo.experiment import schema
from igpo.experiment.policy import load, load_tokenizer
from igpo.protocols import prepare
from igpo.protocols.renderer import Renderer
from igpo.tree.forward import autocast, logprobs
from igpo.tree.passes import run_model, run_naive
from igpo.tree.segments import depth, flatten, packs
from pipeline import storage
from pipeline.errors import UserError

PARAMS = SimpleNamespace(
    step_reward="log_prob_diff", gold="first", counterfactuals=2, format_penalty=-2.0, dtype="float32"
)


@pytest.fixture(scope="module")
def renderer(base_model):
    return Renderer(load_tokenizer(base_model), prepare("igpo"))


@pytest.fixture(scope="module")
def rows(renderer):
    """Two questions; the first with two samples, of three turns and of one."""
    turn, observation = renderer.turn, renderer.observation
    first, second = renderer.prompt("When was Melville born?"), renderer.prompt("Who wrote Emma?")
    search = turn("\nI look.\n</think>\n<tool_call>{}</tool_call>")
    turns = [
        (search, observation("Melville: American writer (1819–1891)")),
        (search, observation("Nothing")),
        (turn("1819"), []),
    ]
    return [
        *rollout("q1", 0, first, turns, "1819"),
        *rollout("q1", 1, first, [(turn("\nNo"), [])], None),
        *rollout(
            "q2", 0, second, [(search, observation("Emma: novel by Jane Austen")), (turn("x"), [])], "x"
        ),
    ]


QUESTIONS = {name: {"answers": golds, "supporting_ids": []} for name, golds in GOLDS.items()}


def score_rows(base_model, renderer, rows, **overrides):
    """The rows that the stage would write."""
    params = SimpleNamespace(**vars(PARAMS) | overrides)
    groups = score.forced_groups(rows, renderer, QUESTIONS, params)
    values = run_model(base_model, [score.tree(group) for group in groups], 4096, torch.float32)
    result = []
    for trajectory in itertools.chain.from_iterable(groups):
        question = QUESTIONS[trajectory.rows[0]["question_id"]]
        evidence = score.evidence(trajectory, values, question, {})
        result += score.score_trajectory(trajectory, values, values, evidence, question["answers"], params)
    return result


@pytest.fixture(scope="module")
def scored(base_model, renderer, rows):
    return score_rows(base_model, renderer, rows)


def test_scores_equal_one_pass_per_turn(base_model, renderer, rows, scored):
    """Disagreements 10 and 17: true positions, whatever the pass holds; one pass instead of one by turn."""
    model = load(base_model, torch.float32, "eager").eval()
    with torch.inference_mode():
        for trajectory in schema.trajectories(rows):
            key = (trajectory[0]["question_id"], trajectory[0]["sample"])
            mine = [row for row in scored if (row["question_id"], row["sample"]) == key]
            gold = [
                naive_gold(model, renderer, context(trajectory, turn), GOLDS[key[0]][0])
                for turn in range(len(trajectory) - 1)
            ]
            assert [row["gold_logprob"] for row in mine[:-1]] == pytest.approx(gold, abs=1e-4)
            gains = [row["info_gain"] for row in mine if row["info_gain"] is not None]
            assert gains == pytest.approx([b - a for a, b in itertools.pairwise(gold)], abs=2e-4)


def test_a_question_s_samples_share_the_gold_answer_after_their_prompt(renderer, rows, scored):
    """Nothing is computed twice: one more sample adds its own turns only."""
    groups = score.forced_groups(rows, renderer, QUESTIONS, PARAMS)
    for group in groups:
        (prompt, _), *_ = group[0].trunk.path()
        trunks = [trajectory.trunk for trajectory in group]
        after_prompt = [segment for segment in flatten([score.tree(group)]) if segment.parent is prompt]
        assert len([segment for segment in after_prompt if segment not in trunks]) == 1
    first = [row["gold_logprob"] for row in scored if row["question_id"] == "q1" and row["turn"] == 0]
    assert first[0] == first[1]


def test_old_logprobs_equal_a_plain_pass(base_model, rows, scored):
    model = load(base_model, torch.float32, "eager").eval()
    trajectory = schema.trajectories(rows)[0]
    ids = [token for row in trajectory for token in row["policy_ids"] + row["observation_ids"]]
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    at = 0
    for row, mine in zip(trajectory, scored, strict=False):
        expected = [float(logits[at + i - 1, token]) for i, token in enumerate(row["policy_ids"])]
        assert mine["old_logprobs"] == pytest.approx(expected, abs=2e-4)
        at += len(row["policy_ids"]) + len(row["observation_ids"])


def test_information_gain_telescopes_and_reading_the_fact_raises_it(scored):
    turns = [row for row in scored if (row["question_id"], row["sample"]) == ("q1", 0)]
    gains = [row["info_gain"] for row in turns[1:-1]]
    assert sum(gains) == pytest.approx(turns[-2]["gold_logprob"] - turns[0]["gold_logprob"], abs=1e-9)
    assert gains[0] > 0.5


def test_the_last_turn_alone_has_an_outcome(scored):
    outcomes = [
        (row["question_id"], row["sample"], row["outcome"]) for row in scored if row["outcome"] is not None
    ]
    assert outcomes == [("q1", 0, 1.0), ("q1", 1, -2.0), ("q2", 0, 0.0)]
    assert all((row["outcome"] is None) == (row["f1"] is None) for row in scored)


def test_prob_diff_is_the_difference_of_probabilities(base_model, renderer, rows):
    mine = score_rows(base_model, renderer, rows, step_reward="prob_diff")[:4]
    probability = [torch.tensor(row["gold_logprob"]).exp().item() for row in mine[:-1]]
    assert mine[1]["step_reward"] == pytest.approx(probability[1] - probability[0], abs=1e-6)
    assert mine[1]["info_gain"] == pytest.approx(mine[1]["gold_logprob"] - mine[0]["gold_logprob"], abs=1e-6)


def test_the_best_gold_is_the_likeliest_alias(base_model, renderer, rows):
    scores = score_rows(base_model, renderer, rows, gold="best")[-3:]
    model = load(base_model, torch.float32, "eager").eval()
    trajectory = schema.trajectories(rows)[-1]
    with torch.inference_mode():
        expected = [
            max(naive_gold(model, renderer, context(trajectory, turn), gold) for gold in GOLDS["q2"][:2])
            for turn in (0, 1)
        ]
    assert [row["gold_logprob"] for row in scores[:2]] == pytest.approx(expected, abs=1e-4)
    assert scores[1]["info_gain"] == pytest.approx(expected[1] - expected[0], abs=2e-4)


def test_a_counterfactual_gain_is_less_what_other_questions_observations_give(base_model, renderer, rows):
    scores = score_rows(base_model, renderer, rows, step_reward="counterfactual")
    model = load(base_model, torch.float32, "eager").eval()
    first, _, second = schema.trajectories(rows)
    searches = [(first, 1, [second[1]]), (first, 2, [second[1]]), (second, 1, [first[1], first[2]])]
    gains = [row["step_reward"] for row in scores if row["step_reward"] is not None]
    with torch.inference_mode():
        for (trajectory, turn, others), gain in zip(searches, gains, strict=True):
            gold = GOLDS[trajectory[0]["question_id"]][0]
            own = naive_gold(model, renderer, context(trajectory, turn), gold)
            instead = [
                naive_gold(model, renderer, context(trajectory, turn, row["observation_ids"]), gold)
                for row in others
            ]
            assert gain == pytest.approx(own - sum(instead) / len(instead), abs=2e-4)
    assert gains[0] > 0.5


def test_stepsearch_reads_the_passages_from_the_corpus(tmp_path):
    texts = [("1", "Melville", "writer"), ("2", "Emma", "novel by Austen"), ("3", "Rome", "city")]
    corpus = [dict(zip(("id", "title", "text"), row, strict=True)) for row in texts]
    storage.write(corpus, storage.CORPUS, tmp_path / "corpus.parquet", ("id",))
    questions = {"q1": {"supporting_ids": ["1"]}}
    vectors = score.passage_vectors(tmp_path / "corpus.parquet", questions, [{"hit_ids": ["2"]}])
    assert list(vectors) == ["1", "2"]
    assert set(vectors["2"]) == {"emma", "novel", "by", "austen"}
    with pytest.raises(UserError, match="no passage '9'"):
        score.passage_vectors(tmp_path / "corpus.parquet", questions, [{"hit_ids": ["9"]}])
    with pytest.raises(UserError, match="question 'q2' has no supporting passages"):
        score.passage_vectors(tmp_path / "corpus.parquet", {"q2": {"supporting_ids": []}}, [])
    with pytest.raises(UserError, match="give --corpus"):
        score.passage_vectors(None, questions, [])


def test_without_step_rewards_they_are_0_and_the_rest_is_as_with_them(base_model, renderer, rows, scored):
    scores = score_rows(base_model, renderer, rows, step_reward="none")
    assert [row["step_reward"] for row in scores if row["step_reward"] is not None] == [0.0] * 3
    for row, other in zip(scores, scored, strict=True):
        assert row | {"step_reward": other["step_reward"]} == other


def test_any_gold_answer_earns_the_outcome(tmp_path):
    """Disagreement 6: training with the released code knows the first alias alone, in F1 too."""
    words = tokenizer()
    policy = tmp_path / "policy"
    tiny("qwen2", len(words)).bfloat16().save_pretrained(policy)
    words.save_pretrained(policy)
    rows = rollout("q2", 0, [1, 2], [([3], [4]), ([5], [])], "Austen")
    score.main([*stage_words(tmp_path, policy, policy, rows), "--params", "params.yaml"])
    last = storage.read(tmp_path / "scores.parquet", schema.SCORES).to_pylist()[-1]
    assert (last["outcome"], last["f1"], last["em"]) == (1.0, 1.0, 1.0)


def test_the_call_that_ran_out_of_turns_carries_the_penalty_and_has_no_gain():
    """Disagreement 18: in the first released code an empty turn is blamed, and the call gets a gain of 0."""
    rows = rollout("q1", 0, [1, 2], [([3], [4]), ([5], [])], None)
    rows[-1] |= {"stop": "turn_limit", "tool": "web_search", "hit_ids": ["x"]}
    ((trajectory,),) = score.groups(rows)
    logprobs = {id(trajectory.trunk): [-0.5, -0.25]}
    evidence = Evidence([[-2.0], [-1.0]], [[]], [], {})
    scores = score.score_trajectory(trajectory, logprobs, logprobs, evidence, GOLDS["q1"], PARAMS)
    assert [row["info_gain"] for row in scores] == [row["step_reward"] for row in scores] == [None, 1.0, None]
    assert [row["outcome"] for row in scores] == [None, None, -2.0]
    assert [row["old_logprobs"] for row in scores] == [[], [-0.5], [-0.25]]


def test_a_missing_turn_is_an_error(rows):
    with pytest.raises(UserError, match=r"trajectory \('q1', 0\) has turns \[0, 2, 3\]"):
        schema.trajectories([rows[0], *rows[2:]])


def test_a_group_beyond_the_budget_is_cut_and_scores_the_same(base_model, renderer, rows):
    whole = score.forced_groups(rows, renderer, QUESTIONS, PARAMS)
    parts = score.cut(whole, 100)
    assert [len(part) for part in parts] == [1, 1, 1]
    assert score.cut(whole, 4096) == whole
    passes = []
    for groups in (whole, parts):
        values = run_model(base_model, [score.tree(group) for group in groups], 100, torch.float32)
        segments = [segment for group in groups for segment in score.tree(group) if segment.targets]
        passes.append([values[id(segment)] for segment in segments])
    for left, right in zip(*passes, strict=True):
        assert left == pytest.approx(right, abs=1e-4)


def test_naive_passes_give_the_same(base_model, renderer, rows):
    trees = [score.tree(group) for group in score.forced_groups(rows, renderer, QUESTIONS, PARAMS)]
    packed = run_model(base_model, trees, 4096, torch.float32)
    naive = run_naive(base_model, trees, torch.float32)
    assert naive.keys() == packed.keys()
    for key, values in packed.items():
        assert values == pytest.approx(naive[key], abs=2e-4)


def test_a_training_pass_in_bf16_gives_the_same(base_model, renderer, rows):
    """Otherwise ratios of the first update aren't 1."""
    groups = score.forced_groups(rows, renderer, QUESTIONS, PARAMS)
    trees = [score.tree(group, branches=False) for group in groups]
    values = run_model(base_model, trees, 4096, torch.bfloat16)
    model = load(base_model, torch.float32, "tree").train()
    ((packed, _),) = packs(trees, 4096, "cpu", "trained on")
    with autocast("cpu", torch.bfloat16):
        parts = packed.split(logprobs(model, packed))
    for segment, part in zip(packed.segments, parts, strict=True):
        assert values[id(segment)] == pytest.approx(part.tolist(), abs=1e-6)


def test_depth_counts_the_whole_path(renderer, rows):
    trunk = score.groups(rows)[0][0].trunk
    assert depth(trunk) == sum(len(row["policy_ids"]) + len(row["observation_ids"]) for row in rows[:4])
