"""How much an experiment asks for: trajectories, iterations, passages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from igpo.credit.methods import WITH_CRITIC
from igpo.experiment import layout, schema
from pipeline import storage
from pipeline.errors import UserError
from pipeline.settings import apply_arm, merge


def with_comparisons(params: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The parameters with the arms that the comparisons `tables.NAME` train among `run.arms`."""
    run = params["run"]
    arms = [arm for name in names for arm in layout.compared_arms(params, name)]
    further = [arm for arm in arms if arm not in run["baselines"]]
    return {**params, "run": {**run, "arms": list(dict.fromkeys([*run["arms"], *further]))}}


def volume(
    params: Mapping[str, Any], available: Mapping[str, int], length: int | None = None
) -> dict[str, int]:
    """Numbers of runs, updates, trajectories and tokens that the parameters ask for.

    `available` questions (of `schema.SPLITS`) count if a section asks for all of them. A trajectory has
    `length` tokens; without it `max_tokens`, which bounds it.
    """
    run = params["run"]
    seeds, steps = len(run["seeds"]), len(run["seeds"]) * run["iterations"]
    arms = {name: apply_arm(params, name) for name in run["arms"]}
    counts = {name: steps * _trajectories(arm["rollout"], available, "train") for name, arm in arms.items()}
    tokens = {name: counts[name] * (length or arm["rollout"]["max_tokens"]) for name, arm in arms.items()}
    critics = [name for name, arm in arms.items() if arm["advantage"]["method"] in WITH_CRITIC]
    greedy = merge(params["rollout"], params["evaluate"]["rollout"])
    evaluations = len(layout.evaluations(run))
    answers = evaluations * _trajectories(greedy, available, "test")
    validations = len(layout.validations(params))
    dev = layout.validation_settings(params, None)
    dev_trajectories = validations * _trajectories(dev, available, "dev") if validations else 0
    return {
        "runs": len(arms) * seeds,
        "of them with a critic": len(critics) * seeds,
        "updates": (len(arms) + len(critics)) * steps,
        "critic updates": len(critics) * steps,
        "training trajectories": sum(counts.values()),
        "training tokens": sum(tokens.values()),
        "of them for critics": sum(tokens[name] for name in critics),
        "policies kept": len(arms) * seeds * len(layout.kept(run)) + len(layout.best_policies(run)),
        "validations": validations,
        "validation trajectories": dev_trajectories,
        "validation tokens": dev_trajectories * (length or greedy["max_tokens"]),
        "evaluations": evaluations,
        "evaluation trajectories": answers,
        "evaluation tokens": answers * (length or greedy["max_tokens"]),
    }


def _trajectories(rollout: Mapping[str, Any], available: Mapping[str, int], split: str) -> int:
    number = rollout["questions"] or available.get(split)
    if number is None:
        raise UserError(f"the parameters ask for all {split} questions: give --questions {split}=N")
    return int(min(number, available.get(split, number)) * rollout["samples"])


def question_counts(root: Path) -> dict[str, int]:
    """Questions by split, from the question files that are there."""
    files = {split: root / f"results/questions/{split}.parquet" for split in schema.SPLITS}
    return {
        split: len(storage.read(path, schema.QUESTIONS)) for split, path in files.items() if path.exists()
    }


def passage_count(root: Path) -> int:
    """Passages of the corpus that is there; 0 without one."""
    path = root / "results/corpus.parquet"
    return len(storage.read(path, storage.CORPUS)) if path.exists() else 0


def gpus_of_stages(params: Mapping[str, Any]) -> dict[str, int]:
    """How many GPUs each stage of an iteration takes at a time."""
    gpus = {name: params[name]["processes"] for name in ("score", "critic", "train")}
    gpus["train"] *= params["train"]["nodes"]
    return {"rollout": params["rollout"]["tensor_parallel"], **gpus}
