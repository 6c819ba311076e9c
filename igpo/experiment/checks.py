"""The experiment's parameters as a whole: read and checked before anything runs."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from igpo.credit.methods import WITH_CRITIC
from igpo.experiment.layout import compared_arms, row_name, scores_alike, selected
from igpo.reporting import published
from pipeline.errors import UserError
from pipeline.settings import apply_arm, check_schema, merge, nearest, parse_json, read_params
from retrieval.encoder.folder import decisive_files

COMPARISONS = (  # sections of `tables` that name arms to compare
    "algorithms",
    "ablation",
    "basis",
    "per_question",
    "single_turn",
    "gamma",
)


def check(params: Mapping[str, Any]) -> None:
    """Check all sections, the arms, and the names in `run` and `tables`; UserError for the first wrong one.

    An arm's keys obey the schema of the section that it is laid over, so the merged sections do too.
    """
    check_schema(params)
    if params["judge"]["url"] and not params["judge"]["model"]:
        raise UserError("params: judge.url is set but not judge.model: name the model there")
    run = params["run"]
    for name in dict.fromkeys([*run["arms"], *run["baselines"], *params["arms"]]):
        check_arm(params, name)
    check_selected(params)
    if run["iterations"] and (both := sorted(set(run["arms"]) & set(run["baselines"]))):
        raise UserError(
            f"params: run.baselines: {both[0]!r} is in run.arms too, and a row of tables can't be both: "
            "give what isn't trained another name in arms"
        )
    trained_rows = [row_name(run, arm, how) for arm in run["arms"] for how in selected(run)]
    rows = [*run["baselines"], "warmup", *(trained_rows if run["iterations"] else [])]
    baseline = params["tables"]["baseline"]
    if baseline not in rows:
        raise UserError(
            f"params: tables.baseline: {baseline!r} is not a row; nearest: {nearest(baseline, rows)!r}"
        )
    for table in COMPARISONS:
        check_comparison(params, table)
    for name in params["tables"]["collapse"]:
        check_recomputed(params, name)


def check_arm(params: Mapping[str, Any], name: str) -> None:
    """Raise UserError for what doesn't go together in arm `name`; any arm may be a target of Snakemake's."""
    arm = apply_arm(params, name)
    check_shards(params, f"arms.{name}", arm)
    evaluation = merge(arm["rollout"], arm["evaluate"]["rollout"])
    check_instructions(f"arms.{name}.rollout", arm["rollout"], params["rollout"])
    for base in (arm["rollout"], merge(params["rollout"], params["evaluate"]["rollout"])):
        check_instructions(f"arms.{name}: evaluate.rollout", evaluation, base)


def check_shards(params: Mapping[str, Any], where: str, arm: Mapping[str, Any]) -> None:
    """Raise UserError unless an arm has the shards and nodes of all, and a question for each shard."""
    if arm["train"]["nodes"] != params["train"]["nodes"]:
        raise UserError(f"params: {where}: train.nodes is one for all arms: set it in train")
    questions = arm["rollout"]["questions"]
    evaluation = merge(arm["rollout"], arm["evaluate"]["rollout"])
    for key, settings in (("rollout", arm["rollout"]), ("rollout", evaluation), ("score", arm["score"])):
        shards = params[key]["shards"]
        if settings["shards"] != shards:
            raise UserError(
                f"params: {where}: {key}.shards is one for all arms and evaluations: set it in {key}"
            )
        if questions is not None and shards > questions:
            raise UserError(
                f"params: {key}.shards: {shards} are more than the {questions} questions of an iteration"
            )


def check_instructions(where: str, settings: Mapping[str, Any], base: Mapping[str, Any]) -> None:
    """Raise UserError if another protocol than the base's would be given the base's instructions."""
    is_another = settings["protocol"] != base["protocol"]
    if is_another and settings["instructions"] and settings["instructions"] == base["instructions"]:
        raise UserError(
            f"params: {where}.protocol: {settings['protocol']!r} would have the instructions of "
            f"{base['protocol']!r}: give its own beside it, or instructions: null"
        )


def check_recomputed(params: Mapping[str, Any], name: str) -> None:
    """Raise UserError unless the advantages of arm `name` follow from other arms' rollouts and scores."""
    where = f"params: tables.collapse: {name!r}"
    if apply_arm(params, name)["advantage"]["method"] in WITH_CRITIC:
        raise UserError(f"{where} needs a critic's values, which other arms lack: leave it out")
    if not scores_alike(params, name):
        raise UserError(f"{where} has a `rollout` or `score` section of its own: leave it out")


def check_selected(params: Mapping[str, Any]) -> None:
    """Raise UserError if `run.select` asks for validations that aren't made, or names a row as an arm."""
    run = params["run"]
    if "best_dev" in selected(run) and not run["validate_every"]:
        raise UserError("params: run.select: best_dev needs validations: set run.validate_every above 0")
    for arm in run["arms"]:
        for how in selected(run)[1:]:
            if (name := row_name(run, arm, how)) in params["arms"]:
                raise UserError(
                    f"params: arms.{name}: run.select gives {arm} a row of this name; rename the arm"
                )


def check_comparison(params: Mapping[str, Any], table: str) -> None:
    """Raise UserError unless the arms of `tables.TABLE` exist and stand for rows that the paper prints."""
    settings = params["tables"][table]
    for arm in compared_arms(params, table):
        apply_arm(params, arm)
    methods = published.methods(table)
    for arm, row in settings["rows"].items():
        if row is not None and row not in methods:
            where, near = f"tables.{table}.rows.{arm}", nearest(row, methods)
            raise UserError(f"params: {where}: no published row {row!r}; nearest: {near!r}")


def source_files(sources: str | list[str] | None) -> list[str]:
    """The files behind a source, or behind each of a list: itself, or those in a folder; none if embedded.

    `{split}` in a name stands for each of the splits that are there.
    """
    names = [sources] if isinstance(sources, str) else sources or []
    splits = ("train", "dev", "test")
    paths = dict.fromkeys(Path(source.replace("{split}", split)) for source in names for split in splits)
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    return [str(file) for file in files if file.is_file()]


def encoder_files(params: Mapping[str, Any], kind: str) -> list[str]:
    """The files of the encoder or reranker of an index of `kind`; none if it is embedded or has none."""
    source = {"dense": params["index"]["encoder"], "rerank": params["index"]["reranker"]}.get(kind)
    return [] if source in (None, "minilm") else list(map(str, decisive_files(Path(source))))


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
    embedded_names = {"corpus.source": "vital", "model.source": "smollm2", "questions.source": "vitalqa"}
    if "dense" in params["index"]["kinds"]:
        embedded_names["index.encoder"] = "minilm"
    if "rerank" in params["index"]["kinds"]:
        if params["index"]["reranker"] is None:
            raise UserError(
                "params: index.kinds has rerank: give the cross-encoder's folder as index.reranker"
            )
        embedded_names["index.reranker"] = ""
    if params["judge"]["model"] and not params["judge"]["url"]:
        embedded_names["judge.model"] = "smollm2"
    for key, own in embedded_names.items():
        section, name = key.split(".")
        value = params[section][name]
        sources = [value] if isinstance(value, str) else value
        for source in sources if sources != [own] else []:
            if not (source_files(source) or (own == "smollm2" and is_cached(source))):
                raise UserError(
                    f"params: {key}: {source!r} is neither a file nor a folder with files, "
                    f"seen from {Path.cwd()}; give one{f', or {own!r}' if own else ''}"
                )


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
