"""Parameters: the files in the repository are valid, and what is wrong is named in one line."""

import copy
import re

import pytest
from root import ROOT

from igpo.experiment import checks
from igpo.protocols.protocol import Protocol
from pipeline.errors import UserError
from pipeline.settings import apply_arm, numbers, overrides, parse_json, read_params


@pytest.mark.parametrize("overlay", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_is_valid_and_adds_no_key(overlay, params):
    merged = read_params([ROOT / "params.yaml", overlay])
    checks.check(merged)
    for name, section in params.items():
        if name not in ("arms", "evaluate"):
            assert set(merged[name]) == set(section)


@pytest.mark.parametrize("overlays", [[], ["experiments/paper.yaml"]], ids=["mini", "paper"])
def test_the_defaults_are_those_of_version_2_of_the_paper(overlays):
    """Disagreements 1, 4, 5, 7, 14 and 16: what is chosen where a release, or its script, differs."""
    merged = read_params([ROOT / name for name in ("params.yaml", *overlays)])
    chosen = {
        "score": {"step_reward": "log_prob_diff"},
        "advantage": {"method": "igpo", "normalisation": "separate", "scope": "group", "std": "population"},
        "train": {
            "aggregation": "seq-mean-token-mean",
            "updates": 1,
            "entropy": 0.0,
            "dual_clip": None,
        },
    }
    for section, values in chosen.items():
        assert {name: merged[section][name] for name in values} == values
    assert merged["arms"]["igpo"] == {}


def test_the_paper_s_experiment_has_the_values_that_a_small_model_can_t_learn_with():
    """Disagreements 7 and 15: the default has another penalty, more steps, and every type as often."""
    mini, paper = (
        read_params([ROOT / name for name in ("params.yaml", *overlays)])
        for overlays in ([], ["experiments/paper.yaml"])
    )
    assert paper["score"]["format_penalty"] == -2.0 < mini["score"]["format_penalty"] < 0
    assert paper["train"]["minibatches"] == 1 < mini["train"]["minibatches"]
    assert not paper["rollout"]["by_type"]


def test_the_date_in_prompts_is_that_of_the_parameters(params):
    """The warm-up and scores that are run by hand have it as their default."""
    assert params["rollout"]["date"] == Protocol.date


def test_every_parameter_is_explained():
    lines = (ROOT / "params.yaml").read_text().splitlines()
    for section in ("run", "warmup", "rollout", "score", "advantage", "health"):
        start = next(at for at, line in enumerate(lines) if line.startswith(f"{section}:"))
        keys = [line for line in lines[start + 1 : lines.index("", start)] if re.match(r"  \w+:", line)]
        assert keys
        bare = [line for line in keys if "#" not in line]
        assert len(bare) <= 2, bare


def wrong(params: dict, path: str, value: object) -> dict:
    """A copy of `params` with `value` at `a.b.c`; None removes the key."""
    variant = copy.deepcopy(params)
    *parents, last = path.split(".")
    place = variant
    for name in parents:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return variant


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("advantage.gama", 0.9, "unknown key 'gama' in advantage; nearest valid key: 'gamma'"),
        ("advantage.gain_weight", [1.0, 0.5, 0.2], "advantage.gain_weight: [1.0, 0.5, 0.2] is too long"),
        ("rolout", {}, "unknown key 'rolout' in top level; nearest valid key: 'rollout'"),
        ("rollout.samples", -1, "rollout.samples: -1 is less than the minimum"),
        (
            "rollout.engine",
            "vlm",
            "rollout.engine: 'vlm' is not one of ['vllm', 'transformers']; nearest: 'vllm'",
        ),
        ("rollout.protocol", "serch_r1", "nearest: 'search_r1'"),
        ("rollout.instructions", "", "rollout.instructions: '' should be non-empty"),
        ("rollout.date", "1 May 2025", "rollout.date: '1 May 2025' does not match"),
        ("advantage.method", "gipgo", "]; nearest: 'gigpo'"),
        ("score.step_reward", "log_prob_dif", "]; nearest: 'log_prob_diff'"),
        ("tables.metric", "f1_sqad", "]; nearest: 'f1_squad'"),
        ("advantage.gamma", "much", "advantage.gamma: 'much' is not of type 'number'"),
        ("train.lr", None, "'lr' is a required property"),
        ("train.lr", float("nan"), "train.lr: nan is not a finite number"),
        ("advantage.gain_weight", [1.0, float("inf")], "advantage.gain_weight.1: inf is not a finite number"),
        ("train.updates", 2.0, "train.updates: 2.0 is not of type 'integer'"),
        ("rollout.samples", True, "rollout.samples: True is not of type 'integer'"),
        ("questions.headline_types", ["birth_yaer"], "nearest: 'birth_year'"),
        (
            "evaluate.rollout.sampels",
            1,
            "unknown key 'sampels' in evaluate.rollout; nearest valid key: 'samples'",
        ),
        (
            "arms.grpo.advantage.metod",
            "x",
            "unknown key 'metod' in arms.grpo.advantage; nearest valid key: 'method'",
        ),
        ("arms.grpo.corpus", {}, "unknown key 'corpus' in arms.grpo"),
        ("arms.warmup", {}, "arms: 'warmup' does not match"),
        ("run.arms", ["igop"], "no arm 'igop' in arms; nearest: 'igpo'"),
        ("tables.gamma.rows", {0.5: None}, "tables.gamma.rows: 0.5 is not of type 'string'"),
        ("tables.ablation.rows", {"igop": "F1"}, "no arm 'igop' in arms; nearest: 'igpo'"),
        (
            "tables.ablation.rows",
            {"igpo": "F1-IG"},
            "tables.ablation.rows.igpo: no published row 'F1-IG'; nearest: 'F1+IG'",
        ),
        (
            "judge.url",
            "http://127.0.0.1:8000/v1",
            "judge.url is set but not judge.model: name the model there",
        ),
        ("tables.baseline", "nothing", "tables.baseline: 'nothing' is not a row; nearest: '"),
        ("run.select", "best", "run.select: 'best' is not one of ['last', 'best_dev'"),
        ("run.keep_policies", "lst", "run.keep_policies: 'lst' does not match"),
        ("run.keep_policies", ["last", 0], "run.keep_policies.1: 0 is less than the minimum of 1"),
        ("run.validation_questions", 0, "run.validation_questions: 0 is less than the minimum of 1"),
    ],
)
def test_what_is_wrong_is_named(params, path, value, message):
    """Disagreement 2: in the released code any other name of a basis means differences of probabilities."""
    with pytest.raises(UserError, match=re.escape(message)):
        checks.check(wrong(params, path, value))


def test_the_best_on_dev_needs_validations(params):
    params["run"] |= {"select": ["last", "best_dev"], "validate_every": 0}
    message = "run.select: best_dev needs validations: set run.validate_every above 0"
    with pytest.raises(UserError, match=re.escape(message)):
        checks.check(params)


def test_no_arm_has_the_name_of_another_arm_s_second_row(params):
    params["run"] |= {"select": ["last", "best_dev"], "validate_every": 1}
    checks.check(wrong(params, "tables.baseline", "igpo_best_dev"))
    params["arms"]["igpo_best_dev"] = {}
    with pytest.raises(UserError, match=r"arms\.igpo_best_dev: run\.select gives igpo a row of this name"):
        checks.check(params)


def test_numbers_that_yaml_reads_as_text_are_numbers(params):
    variant = numbers(wrong(params, "train.lr", "2e-06"))
    checks.check(variant)
    assert variant["train"]["lr"] == 2e-6
    assert overrides(["tables.bootstrap=1e3"]) == {"tables": {"bootstrap": 1000}}
    assert isinstance(overrides(["tables.bootstrap=1e3"])["tables"]["bootstrap"], int)
    assert overrides(["rollout.date=2026-01-02"]) == {"rollout": {"date": "2026-01-02"}}


def test_a_key_that_comes_twice_is_refused(tmp_path):
    (tmp_path / "p.yaml").write_text("arms:\n  igpo: {}\n  igpo: {advantage: {gamma: 0.5}}\n")
    with pytest.raises(UserError, match=r"p\.yaml: not YAML: key 'igpo' comes twice"):
        read_params([tmp_path / "p.yaml"])


@pytest.mark.parametrize("number", ["010", "-007", "00", "1:30", "1:30.5", "0_7"])
def test_a_number_that_readers_of_yaml_take_for_different_ones_is_refused(tmp_path, number):
    (tmp_path / "p.yaml").write_text(f"rollout: {{k: {number}}}\n")
    with pytest.raises(UserError, match=rf"p\.yaml: not YAML: '{number}' is octal, or counts in sixties"):
        read_params([tmp_path / "p.yaml"])
    with pytest.raises(UserError, match="write the number plainly"):
        overrides([f"rollout.k={number}"])
    if ":" not in number:
        assert numbers(number) == number  # text, which the schema refuses


def test_whole_numbers_in_text_keep_all_their_digits():
    assert numbers({"seeds": ["9007199254740993", "-3", "1e2"]}) == {"seeds": [9007199254740993, -3, 100]}


def test_a_key_that_comes_twice_in_json_is_refused():
    with pytest.raises(UserError, match="--config: not JSON: key 'k' comes twice"):
        parse_json('{"rollout": {"k": 1, "k": 2}}', "--config")


@pytest.mark.parametrize("where", ["arms.mine.rollout", "evaluate.rollout"])
def test_no_protocol_is_given_the_instructions_of_another(params, where):
    variant = wrong(params, "arms.mine", {"rollout": {}})
    variant["rollout"]["instructions"] = "You search."
    checks.check(wrong(variant, where, {"protocol": "react", "instructions": None}))
    with pytest.raises(UserError, match=r"rollout\.protocol: 'react' would have the instructions of 'igpo'"):
        checks.check(wrong(variant, where, {"protocol": "react"}))


def test_instructions_for_evaluation_reach_no_arm_of_another_protocol(params):
    variant = wrong(params, "evaluate.rollout.instructions", "You search.")
    message = (
        r"arms\.closed_book: evaluate\.rollout\.protocol: 'closed_book' would have the instructions of 'igpo'"
    )
    with pytest.raises(UserError, match=message):
        checks.check(variant)
    others = [name for name, arm in params["arms"].items() if (arm or {}).get("rollout", {}).get("protocol")]
    for name in others:
        variant = wrong(variant, f"arms.{name}.evaluate", {"rollout": {"instructions": None}})
    checks.check(variant)


def test_an_untrained_arm_shares_no_row_with_a_trained_one(params):
    """Both would be averaged as one."""
    baselines = [*params["run"]["baselines"], "igpo"]
    with pytest.raises(UserError, match=r"run\.baselines: 'igpo' is in run\.arms too"):
        checks.check(wrong(params, "run.baselines", baselines))


def test_an_arm_has_a_name(params):
    with pytest.raises(UserError, match="1 is not of type 'string'"):
        checks.check(params | {"arms": params["arms"] | {1: {}}})


def test_no_arm_is_in_empty_arms():
    with pytest.raises(UserError, match="no arm 'grpo' in arms"):
        apply_arm({"arms": None}, "grpo")
