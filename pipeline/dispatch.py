"""Subcommands: `PACKAGE STAGE …` runs `main` of the stage's module, importing nothing else."""

import contextlib
import difflib
import importlib
import sys
from collections.abc import Mapping


def dispatch(package: str, stages: Mapping[str, str], argv: list[str], folders: Mapping[str, str]) -> None:
    """Run `argv[0]` of `package` with the rest of `argv`; print the list of stages without one.

    A stage's module stands in the package itself, or in the one that `folders` names.
    """
    if not argv or argv[0] in ("-h", "--help"):
        lines = [f"  {name:<10} {doc}" for name, doc in stages.items()]
        with contextlib.suppress(BrokenPipeError):  # `head` has seen enough
            print("\n".join([f"usage: {package} STAGE [--help] ...\n", *lines]))
        sys.exit(0 if argv else 2)
    if argv[0] not in stages:
        near = difflib.get_close_matches(argv[0], stages, 1, 0)[0]
        print(f"error: {package} has no stage {argv[0]!r}; nearest: {near!r}", file=sys.stderr)
        sys.exit(2)
    importlib.import_module(f"{folders.get(argv[0], package)}.{argv[0]}").main(argv[1:])
