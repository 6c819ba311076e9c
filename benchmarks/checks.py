"""Finished tables of the paper's checks -> docs/results/NAME.md, one page each, with what made them.

    snakemake --cores all tables/gamma         # after the default run; single_turn and collapse alike
    python -m benchmarks.checks gamma single_turn collapse

On the machine that made them: a page names its processor, and takes the time from the costs of its stages.
Pages of a processor without AVX-512 stand in docs/results/avx2 (`--out`), with AMX in docs/results/amx.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.pages import measure
from benchmarks.pages.finished_run import wall
from igpo.experiment import checks, layout
from pipeline import storage
from pipeline.devices import compute_dtype
from pipeline.errors import UserError
from pipeline.settings import apply_arm, read_params

ABOUT = {  # title, and what a reader should know ahead of the table
    "gamma": (
        "Discounts of igpo on dev questions",
        "With a discount below 1 a search counts less of what later turns gained. These are dev questions,"
        " which may choose settings; no test question was asked.",
    ),
    "single_turn": (
        "One search at most",
        "With one search the advantage of its turn is z of its information gain plus z of the outcome: what"
        " sets igpo apart from grpo is the gain's z.",
    ),
    "collapse": (
        "Groups that teach nothing",
        "Recomputed from the run's rollouts and scores; nothing was sampled or trained for it.",
    ),
    "ablation": (
        "Reward ablation",
        "`f1` is `grpo` to the bit: rollouts, scores, advantages and weights.",
    ),
}
PAGE = """\
# {title}

{about}

Made by {target} after the default run, then {command}. {settings} Made on: {machine}. {time}

{table}"""


def chosen(params: Mapping[str, Any], name: str) -> str:
    """The settings that the numbers hang on, in words; for a comparison those of its baseline's arm."""
    arm = params["tables"][name]["baseline"] if name in checks.COMPARISONS else None
    run, arm_params = params["run"], apply_arm(params, arm)
    rollout, warmup = arm_params["rollout"], arm_params["warmup"]
    seeds = f"Seed{'s' * (len(run['seeds']) > 1)} {', '.join(map(str, run['seeds']))}"
    group = f"{rollout['questions'] or 'all'} questions with {rollout['samples']} trajectories"
    penalty = arm_params["score"]["format_penalty"]
    train = arm_params["train"]
    rates = f"{train['minibatches']} steps each at {train['lr']:g}, format penalty {penalty:g}"
    return (
        f"{seeds}; {run['iterations']} updates, each of {group} at temperature {rollout['temperature']}, at"
        f" most {rollout['max_turns']} turns; {rates}. Warm start: {warmup['traces']} traces, learning rate"
        f" {warmup['lr']:g}."
    )


def own_costs(params: Mapping[str, Any], name: str, results: Path) -> list[dict[str, Any]]:
    """Costs of what the target makes beyond the default run: its arms and evaluations, or its table alone.

    A first iteration that is a copy of another arm's has that one's costs, and is left out.
    """
    if name not in checks.COMPARISONS:
        return [storage.read_json(results / "tables" / f"{name}.cost.json")]
    arms = set(layout.compared_arms(params, name)) - set(params["run"]["arms"])
    evaluations = layout.compared(params, name).keys() - layout.evaluations(params["run"]).keys()
    folders = {
        *(results / "runs" / arm for arm in arms),
        *(results / "evaluations" / one for one in evaluations),
    }
    costs = {path: storage.read_json(path) for path in results.rglob("*.cost.json")}
    own = {path for path in costs if not folders.isdisjoint(path.parents)}
    begun_elsewhere = {costs[path]["began"] for path in costs.keys() - own}
    return [costs[path] for path in own if costs[path]["began"] not in begun_elsewhere]


def time_taken(costs: list[dict[str, Any]]) -> str:
    """From the first of these stages' start to the last one's end, in words."""
    minutes = wall((cost["began"], cost["ended"]) for cost in costs) / 60
    return f"With the default run's files at hand this took {minutes:.1f} minutes."


def page(params: Mapping[str, Any], name: str, root: Path, overlays: list[Path]) -> str:
    """The page of a finished table below `root`. Raises UserError if it is not made."""
    table = root / "results/tables" / f"{name}.md"
    if not table.exists():
        raise UserError(f"{table}: no such file; make it first: snakemake --cores all tables/{name}")
    title, about = ABOUT[name]
    files = "".join(f" {path}" for path in overlays)
    layers = "".join(f" --params {path}" for path in (["params.yaml", *overlays] if overlays else []))
    return PAGE.format(
        title=title,
        about=about,
        target=f"`snakemake --cores all tables/{name}{' --configfile' + files if overlays else ''}`",
        command=f"`python -m benchmarks.checks {name}{layers}`",
        settings=chosen(params, name),
        machine=measure.machine(compute_dtype()),
        time=time_taken(own_costs(params, name, root / "results")),
        table=table.read_text(),
    )


def main() -> None:
    """Write the pages that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=ABOUT, metavar="NAME", help=" | ".join(ABOUT))
    parser.add_argument(
        "--params", type=Path, action="append", metavar="FILE", help="repeatable; default: params.yaml"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"), metavar="DIR")
    args = parser.parse_args()
    files = args.params or [Path("params.yaml")]
    try:
        params = read_params(files)
        checks.check(params)
        for name in args.names:
            text = page(params, name, Path(), files[1:])
            with storage.replacing(args.out / f"{name}.md") as path:
                path.write_text(text)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
