"""The best policy so far on dev questions: `policy, its validation, the best before -> policy folder`.

The folder holds the better of the two by hard links, and its `policy.json` says after which update it was
taken and what else was validated. The earlier one stays if both have the same F1. Test questions choose
nothing.
"""

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

from pipeline import stage, storage
from pipeline.errors import UserError

BY = "dev F1"


def better(manifest: dict[str, Any], f1: float, before: dict[str, Any] | None) -> dict[str, Any]:
    """The manifest of the better policy, with what is known of the choice as `selected`.

    `manifest` is that of the policy whose F1 on dev questions is `f1`, `before` that of the best before it.
    """
    update = manifest["iteration"]
    f1_by_update = before["selected"]["validated"] if before else {}
    winner, best = manifest, {"iteration": update, "f1": f1}
    if before and before["selected"]["f1"] >= f1:
        winner, best = before, {name: before["selected"][name] for name in ("iteration", "f1")}
    return {**winner, "selected": {"by": BY, **best, "validated": {**f1_by_update, str(update): f1}}}


def metrics_of(file: Path, manifest: dict[str, Any], policy: Path) -> dict[str, Any]:
    """The metrics that `file` holds of a policy on dev questions; UserError if they are another policy's."""
    metrics: dict[str, Any] = storage.read_json(file)
    if metrics["provenance"].get("policy") != manifest["weights_sha256"]:
        raise UserError(f"{file}: of another policy than {policy}; validate that one")
    return metrics


def link(source: Path, target: Path) -> None:
    """Let `target` be `source` too, in one piece; a copy if the file system has no hard links."""
    with storage.replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copy2(source, temporary)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--policy", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--dev", type=Path, required=True, metavar="FILE", help="metrics.json of its validation"
    )
    parser.add_argument("--before", type=Path, metavar="DIR", help="the best policy before it")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace) -> str:
    """Choose, link the model's files and write the manifest last."""
    manifest = storage.read_json(args.policy / "policy.json")
    f1 = metrics_of(args.dev, manifest, args.policy)["overall"]["f1"]["mean"]
    before = storage.read_json(args.before / "policy.json") if args.before else None
    best = better(manifest, f1, before)
    iteration = best["selected"]["iteration"]
    source = args.policy if args.before is None or iteration == manifest["iteration"] else args.before
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "policy.json").unlink(missing_ok=True)
    for name in best["files"]:
        link(source / name, args.out / name)
    storage.write_json(best, args.out / "policy.json")
    highest, update = best["selected"]["f1"], manifest["iteration"]
    return f"update {iteration}, {BY} {highest:.3f}; after update {update}: {f1:.3f}"


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
