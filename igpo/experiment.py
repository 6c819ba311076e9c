"""The experiment as a whole: its checked parameters, and the folders that its runs and evaluations fill."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from igpo import published
from igpo.methods import WITH_CRITIC
from retrieval.errors import UserError
from retrieval.params import apply_arm, check_schema, merge, nearest, parse_json, read_params

COMPARISONS = (  # sections of `tables` that name arms to compare
    "algorithms",
    "ablation",
    "basis",
    "per_question",
    "single_turn",
    "gamma",
)
ON_DEV = ("gamma",)  # those of dev questions, which may choose settings; the others are of test questions


def check(params: Mapping[str, Any]) -> None:
    """Check all sections, the arms, and the names in `run` and `tables`; UserError for the first wrong one.

    An arm's keys obey the schema of the section that it is laid over, so the merged sections do too.
    """
    check_schema(params)
    if params["judge"]["url"] and not params["judge"]["model"]:
        raise UserError("params: judge.url is set but not judge.model: name the model there")
    run = params["run"]
    for name in run["arms"] + run["baselines"]:
        arm = apply_arm(params, name)
        if arm["advantage"]["method"] in WITH_CRITIC and arm["critic"]["gamma"] != arm["advantage"]["gamma"]:
            raise UserError(f"params: arms.{name}: critic.gamma and advantage.gamma differ: make them one")
    rows = [*run["baselines"], "warmup", *(run["arms"] if run["iterations"] else [])]
    baseline = params["tables"]["baseline"]
    if baseline not in rows:
        raise UserError(
            f"params: tables.baseline: {baseline!r} is not a row; nearest: {nearest(baseline, rows)!r}"
        )
    for table in COMPARISONS:
        check_comparison(params, table)
    for name in params["tables"]["collapse"]:
        check_recomputed(params, name)


def check_recomputed(params: Mapping[str, Any], name: str) -> None:
    """Raise UserError unless the advantages of arm `name` follow from other arms' rollouts and scores."""
    where = f"params: tables.collapse: {name!r}"
    if apply_arm(params, name)["advantage"]["method"] in WITH_CRITIC:
        raise UserError(f"{where} needs a critic's values, which other arms lack: leave it out")
    if not scores_alike(params, name):
        raise UserError(f"{where} has a `rollout` or `score` section of its own: leave it out")


def check_comparison(params: Mapping[str, Any], table: str) -> None:
    """Raise UserError unless the arms of `tables.TABLE` exist and stand for rows that the paper prints."""
    chosen = params["tables"][table]
    for arm in compared_arms(params, table):
        apply_arm(params, arm)
    printed = published.methods(table)
    for arm, row in chosen["rows"].items():
        if row is not None and row not in printed:
            where, near = f"tables.{table}.rows.{arm}", nearest(row, printed)
            raise UserError(f"params: {where}: no published row {row!r}; nearest: {near!r}")


def source_files(given: str | list[str] | None) -> list[str]:
    """The files behind a source, or behind each of a list: itself, or those in a folder; none where embedded.

    `{split}` in a name stands for each of the splits that are there.
    """
    named = [given] if isinstance(given, str) else given or []
    splits = ("train", "dev", "test")
    paths = dict.fromkeys(Path(source.replace("{split}", split)) for source in named for split in splits)
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    return [str(file) for file in files if file.is_file()]


def is_cached(name: str) -> bool:
    """Whether `name` is a Hugging Face id whose model lies in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ValueError:  # a path that no id can be
        return False


def check_sources(params: Mapping[str, Any]) -> None:
    """Raise UserError for the first file or folder that the parameters name and that is not there.

    Relative paths are seen from the working directory. A model may also be in Hugging Face's cache.
    """
    embedded = {"corpus.source": "vital", "model.source": "smollm2", "questions.source": "vitalqa"}
    if "dense" in params["index"]["kinds"]:
        embedded["index.encoder"] = "minilm"
    if "rerank" in params["index"]["kinds"]:
        if params["index"]["reranker"] is None:
            raise UserError(
                "params: index.kinds has rerank: give the cross-encoder's folder as index.reranker"
            )
        embedded["index.reranker"] = ""
    if params["judge"]["model"] and not params["judge"]["url"]:
        embedded["judge.model"] = "smollm2"
    for key, own in embedded.items():
        section, name = key.split(".")
        given = params[section][name]
        named = [given] if isinstance(given, str) else given
        for source in named if named != [own] else []:
            if not (source_files(source) or (own == "smollm2" and is_cached(source))):
                raise UserError(
                    f"params: {key}: {source!r} is neither a file nor a folder with files, "
                    f"seen from {Path.cwd()}; give one{f', or {own!r}' if own else ''}"
                )


def compared_arms(params: Mapping[str, Any], table: str) -> list[str]:
    """The arms that `tables.TABLE` compares, its baseline among them."""
    chosen = params["tables"][table]
    return list(dict.fromkeys([*chosen["rows"], chosen["baseline"]]))


def folder(arm: str, seed: int | str, k: int) -> str:
    """Folder of iteration `k`; 0 is the warm start, which all arms share."""
    return f"results/runs/{arm}/s{seed}/{k:03d}" if k else "results/warmup"


def iterations(run: Mapping[str, Any]) -> list[str]:
    """Folders of every iteration of every arm and seed in section `run`."""
    ks = range(1, run["iterations"] + 1)
    return [folder(arm, seed, k) for arm in run["arms"] for seed in run["seeds"] for k in ks]


def copies(params: Mapping[str, Any]) -> dict[str, str]:
    """First iterations' files that equal another arm's file to the byte: path -> that arm's path.

    All arms act with the warm start there, so those with equal settings sample and score alike. It is the
    first such arm of section `arms`, so that another choice of `run.arms` changes nothing that was made.
    """
    arms = {arm: apply_arm(params, arm) for arm in params["arms"]}
    found = {}
    for file, sections in (("rollouts", ["rollout"]), ("scores", ["rollout", "score"])):
        leaders: dict[str, str] = {}
        for arm, settings in arms.items():
            leader = leaders.setdefault(json.dumps([settings[name] for name in sections]), arm)
            if leader != arm:
                for seed in params["run"]["seeds"]:
                    path = f"{folder(arm, seed, 1)}/{file}.parquet"
                    found[path] = f"{folder(leader, seed, 1)}/{file}.parquet"
    return found


def scores_alike(params: Mapping[str, Any], arm: str) -> bool:
    """Whether an arm samples and scores as the sections say: its files then serve every such arm's method."""
    settings = apply_arm(params, arm)
    return all(settings[name] == params[name] for name in ("rollout", "score"))


def collapse_iterations(params: Mapping[str, Any]) -> list[str]:
    """Folders of the iterations whose rollouts and scores `tables/collapse` is recomputed from."""
    run = params["run"]
    return iterations({**run, "arms": [arm for arm in run["arms"] if scores_alike(params, arm)]})


def final_policies(run: Mapping[str, Any]) -> dict[str, str]:
    """`ARM_sSEED` -> folder of the last policy of every trained arm and seed."""
    if not run["iterations"]:
        return {}
    names = [(arm, seed) for arm in run["arms"] for seed in run["seeds"]]
    return {f"{arm}_s{seed}": folder(arm, seed, run["iterations"]) for arm, seed in names}


def evaluations(run: Mapping[str, Any]) -> dict[str, tuple[str | None, str]]:
    """What is evaluated, in the order of the table: name -> (arm, folder of the policy)."""
    found: dict[str, tuple[str | None, str]] = {
        name: (name, "results/models/base") for name in run["baselines"]
    }
    found["warmup"] = (None, folder("", 0, 0))
    return found | {name: (name.rpartition("_s")[0], where) for name, where in final_policies(run).items()}


def evaluation_settings(params: Mapping[str, Any], arm: str | None) -> dict[str, Any]:
    """The `rollout` section of an arm (None: of no arm) with its `evaluate.rollout` laid over it."""
    settings = apply_arm(params, arm)
    return merge(settings["rollout"], settings["evaluate"]["rollout"])


def compared(params: Mapping[str, Any], table: str) -> dict[str, tuple[str | None, str]]:
    """What is evaluated for `tables.TABLE`: the warm start, its arms, untrained if in `run.baselines`.

    Trained arms that are all evaluated under settings of their own, such as fewer turns, are compared with
    the warm start under these: `TABLE_warmup`. What is asked dev questions is called `dev/NAME`.
    """
    run, arms = params["run"], compared_arms(params, table)
    baselines = [arm for arm in arms if arm in run["baselines"]]
    trained = [arm for arm in arms if arm not in baselines]
    found = evaluations({**run, "baselines": baselines, "arms": trained})
    settings = [evaluation_settings(params, arm) for arm in (*trained, None)]
    if settings[0] != settings[-1] and all(other == settings[0] for other in settings[:-1]):
        del found["warmup"]
        found = {f"{table}_warmup": (trained[0], folder("", 0, 0)), **found}
    return {f"dev/{name}": where for name, where in found.items()} if table in ON_DEV else found


def compared_iterations(params: Mapping[str, Any], table: str) -> list[str]:
    """Folders of every iteration of the arms that `tables.TABLE` trains."""
    run = params["run"]
    return iterations({**run, "arms": [a for a in compared_arms(params, table) if a not in run["baselines"]]})


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that look at the whole experiment."""
    parser.add_argument(
        "--params", type=Path, action="append", metavar="FILE", help="repeatable; default: params.yaml"
    )
    parser.add_argument("--config", metavar="JSON", help="all parameters, as the rules pass them")


def read(args: argparse.Namespace) -> dict[str, Any]:
    """The checked parameters that `arguments` name."""
    if args.config is not None:
        if args.params:
            raise UserError("--config is all parameters: give it or --params, not both")
        params = parse_json(args.config, "--config")
    else:
        params = read_params(args.params or [Path("params.yaml")])
    check(params)
    return params
