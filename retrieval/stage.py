"""What every stage shares: settings, one summary line, exit codes.

A stage is `python -m package.name --config JSON --out …`. Its settings are one section of
`params.yaml`, checked against `workflow/schemas/params.schema.yaml`: the only list of keys, types and ranges.
"""

import argparse
import ctypes
import datetime
import difflib
import errno
import fcntl
import functools
import json
import logging
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import jsonschema
import yaml

SCHEMA = Path(__file__).parents[1] / "workflow" / "schemas" / "params.schema.yaml"
# What keeps a stage from writing, and how to mend it.
UNWRITABLE = {
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG), "give another path"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "give a path where you may write"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room, or give a path elsewhere"),
}
log = logging.getLogger("igpo")


class UserError(Exception):
    """Something the user can mend: printed as one line, exit code 2."""


def one_line(error: Exception, most: int | None = None) -> str:
    """An exception's text as one line, its first `most` characters."""
    return " ".join(str(error).split())[:most]


def numbers(value: Any) -> Any:
    """Turn text such as `1e-6` into a number: PyYAML reads it as text, and `dvc exp run -S` writes it so.

    A date, which PyYAML makes of `2025-01-01`, becomes text again.
    """
    if isinstance(value, Mapping):
        return {key: numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [numbers(item) for item in value]
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?e[-+]?\d+", value, re.IGNORECASE):
        found = float(value)
        return int(found) if found.is_integer() else found
    return value.isoformat() if isinstance(value, datetime.date) else value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the nested mapping `over` on `base`; lists and scalars replace, mappings merge."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


@functools.cache
def _schema() -> Any:
    if not SCHEMA.is_file():
        raise UserError(f"{SCHEMA}: no such file; install a checkout in place: pip install -e .")
    return yaml.safe_load(SCHEMA.read_text())


def is_whole(_: Any, value: Any) -> bool:
    """Whether a value is an integer; JSON Schema takes 2.0 for one, Python's functions don't."""
    return isinstance(value, int) and not isinstance(value, bool)


Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", is_whole),
)


class Loader(yaml.SafeLoader):
    """YAML whose mappings repeat no key: of a copied line the last would win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; ConstructorError where a key comes twice."""
        known: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in known:
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key.value!r} comes twice", problem_mark=key.start_mark
                )
            known.add(str(key.value))
        return super().construct_mapping(node, deep)


def check_finite(value: Any, where: str) -> None:
    """Raise UserError for NaN or infinity, which no bound of the schema keeps out."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"params: {where}: {value} is not a finite number")
    if isinstance(value, Mapping | list):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            check_finite(item, f"{where}.{key}" if where else str(key))


def nearest(name: str, names: Iterable[str]) -> str:
    """The one of `names` most like `name`, 'none' without any."""
    known = list(names)
    return (difflib.get_close_matches(name, known, 1, 0) or known or ["none"])[0]


def check(params: Any, section: str | None = None) -> None:
    """Check parameters (or one section of them) against the schema.

    Raises UserError that names the first wrong key, its nearest valid name or the allowed values.
    """
    check_finite(params, section or "")
    schema = _schema()["properties"][section] if section else _schema()
    errors = sorted(
        Validator(schema).iter_errors(params),
        key=lambda error: (error.validator != "additionalProperties", str(error)),  # a typo lacks a key too
    )
    if not errors:
        return
    error = errors[0]
    where = ".".join([*([section] if section else []), *map(str, error.absolute_path)]) or "top level"
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        wrong = sorted(map(str, set(error.instance) - set(known)))[0]
        raise UserError(
            f"params: unknown key {wrong!r} in {where}; nearest valid key: {nearest(wrong, known)!r}"
        )
    near = ""
    if error.validator == "enum":
        near = f"; nearest: {nearest(str(error.instance), map(str, error.validator_value))!r}"
    raise UserError(f"params: {where}: {error.message}{near}")


def read_params(paths: list[Path]) -> dict[str, Any]:
    """Read parameter files, later ones over earlier ones; not yet checked."""
    params: dict[str, Any] = {}
    for path in paths:
        try:
            layer = yaml.load(path.read_text(), Loader)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; run in the repository, or give --params FILE") from None
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; give a parameter file") from None
        except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that doesn't exist
            raise UserError(f"{path}: not YAML: {one_line(error)}") from None
        if not isinstance(layer, dict):
            raise UserError(f"{path}: expected sections with keys, found {type(layer).__name__}")
        params = merge(params, numbers(layer))
    return params


def apply_arm(params: Mapping[str, Any], arm: str | None) -> dict[str, Any]:
    """Lay the entry `arm` of section `arms` over the stage sections."""
    if arm is None:
        return dict(params)
    arms = params.get("arms") or {}
    if arm not in arms:
        raise UserError(f"params: no arm {arm!r} in arms; nearest: {nearest(arm, arms)!r}")
    return merge(params, arms[arm] or {})


def overrides(items: list[str]) -> dict[str, Any]:
    """Parse `section.key=value` items (value as YAML) to nested settings."""
    nested: dict[str, Any] = {}
    for item in items:
        path, found, value = item.partition("=")
        section, dot, key = path.partition(".")
        if not (found and dot and section and key):
            raise UserError(f"--set {item}: expected section.key=value")
        try:
            chosen = numbers(yaml.safe_load(value))
        except (yaml.YAMLError, ValueError) as error:
            raise UserError(f"--set {item}: the value is not YAML: {one_line(error)}") from None
        nested = merge(nested, {section: {key: chosen}})
    return nested


def parse_json(text: str, option: str) -> Any:
    """The JSON of an option; UserError where it is none."""
    try:
        return numbers(json.loads(text))
    except ValueError as error:
        raise UserError(f"{option}: not JSON: {error}") from None


def settings(args: argparse.Namespace, section: str) -> SimpleNamespace:
    """The checked settings of one section: --config, or --params with --arm over it; --set over either.

    Raises UserError where they are wrong, and for --config beside what it would make void.
    """
    if args.config is not None:
        if args.params or args.arm is not None:
            raise UserError("--config is the section itself: give it, or --params and --arm, not both")
        values = parse_json(args.config, "--config")
    else:
        params = read_params(args.params or [Path("params.yaml")])
        if args.arm is not None:
            check(params.get("arms"), "arms")
        params = apply_arm(params, args.arm)
        if section not in params:
            raise UserError(f"params: section {section!r} is missing")
        values = params[section]
    chosen = overrides(args.set)
    if set(chosen) - {section}:
        raise UserError(f"--set: this command reads section {section!r} only")
    if isinstance(values, Mapping):  # else `check` refuses it
        values = merge(values, chosen.get(section, {}))
    check(values, section)
    return SimpleNamespace(**values)


class Parser(argparse.ArgumentParser):
    """Reads a stage's command line."""

    def error(self, message: str) -> NoReturn:
        """End as every user error does: in one line, without the usage ahead of it."""
        raise UserError(f"{message}; see --help")


def positive(kind: Callable[[str], Any] = int, most: float = sys.float_info.max) -> Callable[[str], Any]:
    """An argparse type: a number of `kind`, int or float, above 0 and at most `most`; not infinite."""
    bound = "" if most == sys.float_info.max else f", at most {most:g}"
    expected = f"expected a {'whole ' if kind is int else ''}number above 0{bound}"

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: {expected}")
        return value

    return parse


def end_with(parent: int) -> None:
    """Ask the kernel to end this process when its parent dies, at once where it has; only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)


def die_with_parent() -> None:
    """End a rule's stage when Snakemake dies, so that a killed run leaves none behind."""
    if "IGPO_DIE_WITH_PARENT" in os.environ:
        end_with(os.getppid())


def gpu_devices() -> list[Path]:
    """The NVIDIA GPUs of this machine."""
    return sorted(Path("/dev").glob("nvidia[0-9]*"))


def claim_gpus() -> None:
    """Show CUDA as many GPUs as the rule takes (`IGPO_GPUS`), none of which another rule's stage has.

    A GPU is held by a lock in `.snakemake` until the process ends; a cluster gives GPUs out itself. Raises
    UserError where too few are free.
    """
    wanted, devices = int(os.environ.get("IGPO_GPUS", "0")), gpu_devices()
    if not wanted or not devices or "CUDA_VISIBLE_DEVICES" in os.environ:
        return
    held = []
    for number in range(len(devices)):
        lock = os.open(f".snakemake/gpu{number}.lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        held.append(str(number))
        if len(held) == wanted:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held)
            return
    raise UserError(
        f"{wanted} GPUs are needed and {len(held)} of {len(devices)} are free: "
        "end what else runs here, or lower --resources gpu"
    )


def command(
    section: str | None,
    arguments: Callable[[argparse.ArgumentParser], None],
    run: Callable[..., str],
    doc: str | None,
) -> Callable[..., None]:
    """Make a stage's `main(argv)`.

    `arguments` adds the stage's files to the parser; `run(args, settings)` (`run(args)` without a
    section) does the work and returns the summary line. Exit code 2 with one line on UserError and where
    the system lets it not write.
    """

    def main(argv: list[str] | None = None) -> None:
        spec = sys.modules[run.__module__].__spec__
        name = spec.name if spec else run.__module__  # not __main__ under `python -m`
        parser = Parser(
            prog=name.replace(".", " "), description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        arguments(parser)
        if section:
            group = parser.add_argument_group("settings", f"section {section!r} of params.yaml")
            group.add_argument("--params", type=Path, action="append", metavar="FILE", help="repeatable")
            group.add_argument("--config", metavar="JSON", help="the section itself, as the rules pass it")
            group.add_argument("--arm", metavar="NAME", help="apply this entry of `arms:`")
            group.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
        logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
        log.setLevel(logging.INFO)
        die_with_parent()
        start = time.monotonic()
        try:
            args = parser.parse_args(argv)
            claim_gpus()
            summary = run(args, settings(args, section)) if section else run(args)
        except UserError as error:
            print(f"error: {one_line(error)}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)
        except BrokenPipeError:
            sys.exit(0)
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            where = error.filename2 or error.filename or name
            print(f"error: {where}: {error.strerror}; {UNWRITABLE[error.errno]}", file=sys.stderr)
            sys.exit(2)
        if summary:
            print(f"{name}: {summary} ({time.monotonic() - start:.1f} s)")

    return main
