"""Which stages a change of a module runs again -> docs/results/reruns.md.

    python -m benchmarks.reruns

By what a stage's digest of code is made of (`pipeline.digest`), for the default experiment.
"""

from collections import defaultdict
from pathlib import Path

from igpo import protocols
from pipeline import storage
from pipeline.digest import ROOT, files
from pipeline.settings import read_params

STAGES = {
    "retrieval": ("corpus", "index", "coverage"),
    "igpo": ("questions", "model", "warmup", "rollout", "score", "advantage", "train", "evaluate", "health"),
}
ACTING = ("rollout", "score")  # which depend on the protocol in use
HEAD = """\
# What a change runs again

A stage is run again if its code has changed: its own module or one that it imports. Comments, docstrings and
layout do not count. Stages that need less than a second (tables, figures, report, MLflow) are left out.

Made by `python -m benchmarks.reruns`.

| change of | runs again |
| --- | --- |
"""


def dependents(protocol: str) -> dict[str, list[str]]:
    """Module -> the stages whose digest it is in."""
    stages_by_module: dict[str, list[str]] = defaultdict(list)
    for package, stages in STAGES.items():
        for stage in stages:
            names = (f"{package}.{stage}", *([protocols.module(protocol)] if stage in ACTING else []))
            for path in files(names):
                stages_by_module[path.relative_to(ROOT).as_posix()].append(stage)
    return stages_by_module


def main() -> None:
    """Write the page: modules with the same dependents share a line."""
    stages_by_module = dependents(read_params([ROOT / "params.yaml"])["rollout"]["protocol"])
    paths = [
        path for name in ("pipeline", "retrieval", "igpo") for path in sorted((ROOT / name).rglob("*.py"))
    ]
    lines: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        if path.stem not in ("__init__", "__main__"):
            lines[", ".join(stages_by_module[name]) or "nothing"].append(f"`{name.removesuffix('.py')}`")
    rows = sorted(lines.items(), key=lambda line: (line[0].count(","), line[0] != "nothing", line[0]))
    text = HEAD + "".join(f"| {', '.join(names)} | {stages} |\n" for stages, names in rows)
    with storage.replacing(Path("docs/results/reruns.md")) as path:
        path.write_text(text)


if __name__ == "__main__":
    main()
