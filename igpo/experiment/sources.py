"""The files that the parameters name, with their sizes and times: `parameters -> sources.txt`.

DVC, which knows only files of fixed names, asks it whether one of them has changed.
"""

import argparse
from pathlib import Path

from igpo.experiment import checks
from pipeline import stage, storage


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    checks.arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")


def run(args: argparse.Namespace) -> str:
    """Write a line for each file."""
    params = checks.read(args)
    named = [params[section]["source"] for section in ("corpus", "model", "questions")]
    files = [file for source in (*named, params["judge"]["model"]) for file in checks.source_files(source)]
    files += [file for kind in params["index"]["kinds"] for file in checks.encoder_files(params, kind)]
    stats = {file: Path(file).stat() for file in files}
    lines = [f"{file} {stat.st_size} {stat.st_mtime_ns}\n" for file, stat in stats.items()]
    with storage.replacing(args.out) as temporary:
        temporary.write_text("".join(lines))
    return f"{len(lines)} files"


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
