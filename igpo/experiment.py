"""The experiment as a whole: its checked parameters, and the folders that its runs and evaluations fill."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval import stage
from retrieval.stage import UserError


def check(params: Mapping[str, Any]) -> None:
    """Check all sections, the arms, and the names in `run` and `tables`; UserError for the first wrong one.

    An arm's keys obey the schema of the section that it is laid over, so the merged sections do too.
    """
    stage.check(params)
    run = params["run"]
    for name in run["arms"] + run["baselines"]:
        stage.apply_arm(params, name)
    rows = [*run["baselines"], "warmup", *(run["arms"] if run["iterations"] else [])]
    if params["tables"]["baseline"] not in rows:
        raise UserError(f"params: tables.baseline: {params['tables']['baseline']!r} is not a row: {rows}")


def folder(arm: str, seed: int | str, k: int) -> str:
    """Folder of iteration `k`; 0 is the warm start, which all arms share."""
    return f"results/runs/{arm}/s{seed}/{k:03d}" if k else "results/warmup"


def iterations(run: Mapping[str, Any]) -> list[str]:
    """Folders of every iteration of every arm and seed in section `run`."""
    ks = range(1, run["iterations"] + 1)
    return [folder(arm, seed, k) for arm in run["arms"] for seed in run["seeds"] for k in ks]


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


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that look at the whole experiment."""
    parser.add_argument(
        "--params", type=Path, action="append", metavar="FILE", help="repeatable; default: params.yaml"
    )
    parser.add_argument("--config", metavar="JSON", help="all parameters, as the rules pass them")


def read(args: argparse.Namespace) -> dict[str, Any]:
    """The checked parameters that `arguments` name."""
    if args.config:
        params = stage.parse_config(args.config)
    else:
        params = stage.read_params(args.params or [Path("params.yaml")])
    check(params)
    return params
