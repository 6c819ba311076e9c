"""The path of every file below `results/`: what a run's iterations, evaluations and validations fill."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.settings import apply_arm, merge

ON_DEV = ("gamma",)  # those of dev questions, which may choose settings; the others are of test questions


def compared_arms(params: Mapping[str, Any], table: str) -> list[str]:
    """The arms that `tables.TABLE` compares, its baseline among them."""
    comparison = params["tables"][table]
    return list(dict.fromkeys([*comparison["rows"], comparison["baseline"]]))


def folder(arm: str, seed: int | str, k: int) -> str:
    """Folder of iteration `k`; 0 is the warm start, which all arms share."""
    return f"results/runs/{arm}/s{seed}/{k:03d}" if k else "results/warmup"


def of_run(path: str) -> tuple[str, int, int | str] | None:
    """(arm, seed, iteration) of a path below a run; iteration "best" of its best policy. None: of no run."""
    match = re.match(r"results/runs/(\w+)/s(\d+)/(\d{3}|best)", path)
    return match and (match[1], int(match[2]), match[3] if match[3] == "best" else int(match[3]))


def run_iterations(run: Mapping[str, Any], arm: str, seed: int) -> list[str]:
    """Folders of every iteration of one arm and seed."""
    return [folder(arm, seed, k) for k in range(1, run["iterations"] + 1)]


def iterations(run: Mapping[str, Any]) -> list[str]:
    """Folders of every iteration of every arm and seed in section `run`."""
    return [path for arm in run["arms"] for seed in run["seeds"] for path in run_iterations(run, arm, seed)]


def copies(params: Mapping[str, Any]) -> dict[str, str]:
    """First iterations' files that equal another arm's file to the byte: path -> that arm's path.

    All arms act with the warm start there, so those with equal settings sample and score alike. It is the
    first such arm of section `arms`, so that another choice of `run.arms` changes nothing that was made.
    """
    arms = {arm: apply_arm(params, arm) for arm in params["arms"]}
    leader_paths = {}
    for file, sections in (("rollouts", ["rollout"]), ("scores", ["rollout", "score"])):
        leaders: dict[str, str] = {}
        for arm, settings in arms.items():
            leader = leaders.setdefault(json.dumps([settings[name] for name in sections]), arm)
            if leader != arm:
                for seed in params["run"]["seeds"]:
                    path = f"{folder(arm, seed, 1)}/{file}.parquet"
                    leader_paths[path] = f"{folder(leader, seed, 1)}/{file}.parquet"
    return leader_paths


def scores_alike(params: Mapping[str, Any], arm: str) -> bool:
    """Whether an arm samples and scores as the sections say: its files then serve every such arm's method."""
    settings = apply_arm(params, arm)
    return all(settings[name] == params[name] for name in ("rollout", "score"))


def collapse_iterations(params: Mapping[str, Any]) -> list[str]:
    """Folders of the iterations whose rollouts and scores `tables/collapse` is recomputed from."""
    run = params["run"]
    return iterations({**run, "arms": [arm for arm in run["arms"] if scores_alike(params, arm)]})


def selected(run: Mapping[str, Any]) -> list[str]:
    """What `run.select` names, `last` and `best_dev`, the main row's first."""
    return [run["select"]] if isinstance(run["select"], str) else list(run["select"])


def row_name(run: Mapping[str, Any], arm: str, how: str) -> str:
    """The name in tables of an arm's policies that `how` of `run.select` takes."""
    return arm if how == selected(run)[0] else f"{arm}_{how}"


def validated(run: Mapping[str, Any]) -> list[int]:
    """Numbers of updates after which a run is validated: none, every N-th, the last."""
    every, last = run["validate_every"], run["iterations"]
    return sorted({*range(0, last + 1, every), last}) if every and last else []


def evaluation_settings(params: Mapping[str, Any], arm: str | None) -> dict[str, Any]:
    """The `rollout` section of an arm (None: of no arm) with its `evaluate.rollout` laid over it."""
    settings = apply_arm(params, arm)
    return merge(settings["rollout"], settings["evaluate"]["rollout"])


def dev_settings(params: Mapping[str, Any], arm: str | None) -> dict[str, Any]:
    """The same for dev questions, whose benchmarks are those of training: some have test questions alone."""
    return evaluation_settings(params, arm) | {"benchmarks": apply_arm(params, arm)["rollout"]["benchmarks"]}


def validation_settings(params: Mapping[str, Any], arm: str | None) -> dict[str, Any]:
    """The same for a validation, on `run.validation_questions`."""
    return dev_settings(params, arm) | {"questions": params["run"]["validation_questions"]}


def validation_folder(params: Mapping[str, Any], arm: str, seed: int | str, k: int) -> str:
    """Where the policy after update `k` is validated; arms evaluated alike share the warm start's."""
    own = apply_arm(params, arm)["evaluate"], validation_settings(params, arm)
    is_shared = own == (params["evaluate"], validation_settings(params, None))
    return f"{folder(arm, seed, k) if k or is_shared else f'results/runs/{arm}/s{seed}/000'}/validation"


def validations(params: Mapping[str, Any], arms: Iterable[str] | None = None) -> list[str]:
    """Folders of the validations of `run.arms`, or of those of them that are among `arms`; each once."""
    run = params["run"]
    runs = [(arm, seed) for arm in run["arms"] if arms is None or arm in arms for seed in run["seeds"]]
    folders = [validation_folder(params, *each, k) for each in runs for k in validated(run)]
    return list(dict.fromkeys(folders))


def keeps(run: Mapping[str, Any]) -> set[str | int]:
    """What `run.keep_policies` names, and what `run.select` takes."""
    words = run["keep_policies"] if isinstance(run["keep_policies"], list) else [run["keep_policies"]]
    policy_of = {"last": "last", "best_dev": "best"}
    return {*words, *(policy_of[how] for how in selected(run))}


def kept(run: Mapping[str, Any]) -> list[int]:
    """The iterations whose policies keep their weights."""
    ks, words = range(1, run["iterations"] + 1), keeps(run)
    every = [word for word in words if isinstance(word, int)]
    return [
        k
        for k in ks
        if "all" in words or ("last" in words and k == ks[-1]) or any(k % number == 0 for number in every)
    ]


def best_before(run: Mapping[str, Any], k: int) -> int:
    """The last validated update before `k`, at which the best policy so far was chosen; 0: there was none."""
    return max((number for number in validated(run) if number < k), default=0)


def best_folder(arm: str, seed: int | str) -> str:
    """Folder of a run's best policy on dev questions."""
    return f"results/runs/{arm}/s{seed}/best"


def best_policies(run: Mapping[str, Any]) -> list[str]:
    """Folders of the best policies of all runs, if `run.keep_policies` or `run.select` asks for them."""
    has_best = validated(run) and keeps(run) & {"best", "all"}
    return [best_folder(arm, seed) for arm in run["arms"] for seed in run["seeds"]] if has_best else []


def selected_policies(run: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """`ROW_sSEED` -> (arm, folder of the policy) for all that `run.select` takes of every arm and seed."""
    if not run["iterations"]:
        return {}
    return {
        f"{row_name(run, arm, how)}_s{seed}": (
            arm,
            best_folder(arm, seed) if how == "best_dev" else folder(arm, seed, run["iterations"]),
        )
        for arm in run["arms"]
        for how in selected(run)
        for seed in run["seeds"]
    }


def policies(run: Mapping[str, Any]) -> list[str]:
    """Folders of what training ends with: every run's last and best policies, or the warm start."""
    last_policies = [folder(arm, seed, run["iterations"]) for arm in run["arms"] for seed in run["seeds"]]
    return list(dict.fromkeys([*last_policies, *best_policies(run)])) or [folder("", 0, 0)]


def evaluations(run: Mapping[str, Any]) -> dict[str, tuple[str | None, str]]:
    """What is evaluated, in the order of the table: name -> (arm, folder of the policy)."""
    entries: dict[str, tuple[str | None, str]] = {
        name: (name, "results/models/base") for name in run["baselines"]
    }
    entries["warmup"] = (None, folder("", 0, 0))
    return entries | selected_policies(run)


def compared(params: Mapping[str, Any], table: str) -> dict[str, tuple[str | None, str]]:
    """What is evaluated for `tables.TABLE`: the warm start, its arms, untrained if in `run.baselines`.

    Trained arms that are all evaluated under settings of their own, such as fewer turns, are compared with
    the warm start under these: `TABLE_warmup`. What is asked dev questions is called `dev/NAME`.
    """
    run, arms = params["run"], compared_arms(params, table)
    baselines = [arm for arm in arms if arm in run["baselines"]]
    trained_arms = [arm for arm in arms if arm not in baselines]
    entries = evaluations({**run, "baselines": baselines, "arms": trained_arms, "select": selected(run)[0]})
    settings = [evaluation_settings(params, arm) for arm in (*trained_arms, None)]
    if settings[0] != settings[-1] and all(other == settings[0] for other in settings[:-1]):
        del entries["warmup"]
        entries = {f"{table}_warmup": (trained_arms[0], folder("", 0, 0)), **entries}
    return {f"dev/{name}": where for name, where in entries.items()} if table in ON_DEV else entries


def compared_iterations(params: Mapping[str, Any], table: str) -> list[str]:
    """Folders of every iteration of the arms that `tables.TABLE` trains."""
    run = params["run"]
    return iterations({**run, "arms": [a for a in compared_arms(params, table) if a not in run["baselines"]]})
