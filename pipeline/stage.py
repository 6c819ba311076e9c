"""What every stage shares: its command line, one summary line, exit codes, GPUs of its own.

A stage is `python -m package.name --config JSON --out …`; JSON is its section of `params.yaml`.
"""

import argparse
import ctypes
import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from pipeline import cost
from pipeline.devices import claim_gpus
from pipeline.errors import UserError, one_line
from pipeline.log import log
from pipeline.settings import settings

# What keeps a stage from writing, and how to mend it.
UNWRITABLE = {
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG), "give another path"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "give a path where you may write"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room, or give a path elsewhere"),
}


class Parser(argparse.ArgumentParser):
    """Reads a stage's command line."""

    def error(self, message: str) -> NoReturn:
        """End as every user error does: in one line, without the usage ahead of it."""
        raise UserError(f"{message}; see --help")


def positive(kind: Callable[[str], Any] = int, most: float = sys.float_info.max) -> Callable[[str], Any]:
    """An argparse type: a number of `kind`, int or float, above 0 and at most `most`; not infinite."""
    bound = "" if most == sys.float_info.max else f", at most {most:g}"
    requirement = f"expected a {'whole ' if kind is int else ''}number above 0{bound}"

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: {requirement}")
        return value

    return parse


def end_with(parent: int) -> None:
    """Ask the kernel to end this process when its parent dies, at once if it has; only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)


def die_with_parent() -> None:
    """End a rule's stage when Snakemake dies, so that a killed run leaves none behind."""
    if "IGPO_DIE_WITH_PARENT" in os.environ:
        end_with(os.getppid())


def parser_of(name: str, section: type | None, doc: str | None) -> argparse.ArgumentParser:
    """A stage's parser with the options of its section, if it has one; its files are still to come."""
    parser = Parser(prog=name, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if section:
        title = f"section {section.__name__.lower()!r} of params.yaml"
        group = parser.add_argument_group("settings", title)
        group.add_argument("--params", type=Path, action="append", metavar="FILE", help="repeatable")
        group.add_argument("--config", metavar="JSON", help="the section itself, as the rules pass it")
        group.add_argument("--arm", metavar="NAME", help="apply this entry of `arms:`")
        group.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    return parser


def told(error: Exception, name: str = "") -> str | None:
    """What a user is told of an error in stage `name`; None if it is the code's."""
    if isinstance(error, UserError):
        return one_line(error)
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        where = error.filename2 or error.filename or name
        return f"{where}: {error.strerror}; {UNWRITABLE[error.errno]}"
    return None


@contextmanager
def ending_in_one_line(name: str) -> Iterator[None]:
    """End with one line and exit code 2 on UserError and if the system lets a stage not write."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        message = told(error, name)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def command(
    section: type | None,
    arguments: Callable[[argparse.ArgumentParser], None],
    run: Callable[..., str],
    doc: str | None,
) -> Callable[..., None]:
    """Make a stage's `main(argv)`.

    `section` is a class of `pipeline.sections`. `arguments` adds the stage's files to the parser;
    `run(args, settings)` (`run(args)` without a section) does the work and returns the summary line. Beside
    `args.out` goes what the stage cost (`pipeline.cost`). Exit code 2 with one line on UserError and if the
    system lets it not write.
    """

    def main(argv: list[str] | None = None) -> None:
        spec = sys.modules[run.__module__].__spec__
        module = (spec.name if spec else run.__module__).split(".")  # not __main__ under `python -m`
        name = f"{module[0]}.{module[-1]}"
        parser = parser_of(name.replace(".", " "), section, doc)
        arguments(parser)
        logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
        log.setLevel(logging.INFO)
        die_with_parent()
        start = time.monotonic()
        with ending_in_one_line(name):
            args = parser.parse_args(argv)
            claim_gpus()
            cost.begin()
            summary = run(args, settings(args, section)) if section else run(args)
            if summary and "out" in args:
                cost.write(args.out, module[-1])
        if summary:
            print(f"{name}: {summary} ({time.monotonic() - start:.1f} s)")

    return main
