"""Settings of stages: sections of `params.yaml`, with arms and single keys laid over them.

They are checked against `params.schema.yaml`: the only list of keys, types and ranges.
"""

import argparse
import datetime
import difflib
import functools
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jsonschema
import yaml

from pipeline.errors import UserError, one_line

WORDS = {"true": True, "false": False, "null": None}
WHOLE = r"[-+]?(0|[1-9]\d*)"  # 010 is 8 to some readers of YAML and 10 to others
Section = TypeVar("Section")
SCHEMA = Path(__file__).with_name("params.schema.yaml")


def numbers(value: Any) -> Any:
    """Turn text such as `1e-6` into a number: PyYAML reads it as text, and `dvc exp run -S` writes it so.

    Snakemake makes text of all that `--config` has within braces, so `3`, `true`, `false` and `null` are read
    too. A date, which PyYAML makes of `2025-01-01`, becomes text again.
    """
    if isinstance(value, Mapping):
        return {key: numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [numbers(item) for item in value]
    if isinstance(value, str) and value in WORDS:
        return WORDS[value]
    if isinstance(value, str) and re.fullmatch(WHOLE, value):
        return int(value)
    if isinstance(value, str) and re.fullmatch(rf"{WHOLE}(\.\d*)?(e[-+]?\d+)?", value, re.IGNORECASE):
        number = float(value)
        return int(number) if number.is_integer() else number
    return value.isoformat() if isinstance(value, datetime.date) else value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the nested mapping `over` on `base`; lists and scalars replace, mappings merge."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge(result[key], value) if both else value
    return result


@functools.cache
def _schema() -> Any:
    return yaml.safe_load(SCHEMA.read_text())


def is_whole(_: Any, value: Any) -> bool:
    """Whether a value is an integer; JSON Schema takes 2.0 for one, Python's functions don't."""
    return isinstance(value, int) and not isinstance(value, bool)


Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", is_whole),
)


class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """YAML without what would change a value unseen.

    No key comes twice, of which the last would win, and no number is octal (010 is 8) or sexagesimal (1:30 is
    90), which YAML 1.2 reads otherwise.
    """

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """A number; ConstructorError for one in a form that other readers take for another."""
        if ":" in node.value or re.match(r"[-+]?0[0-7_]", node.value):
            raise yaml.constructor.ConstructorError(
                problem=f"{node.value!r} is octal, or counts in sixties: write the number plainly, or text "
                "in quotes",
                problem_mark=node.start_mark,
            )
        is_whole_number = node.tag.endswith(":int")
        return (self.construct_yaml_int if is_whole_number else self.construct_yaml_float)(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; ConstructorError if a key comes twice."""
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in keys:
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key.value!r} comes twice", problem_mark=key.start_mark
                )
            keys.add(str(key.value))
        return dict(super().construct_mapping(node, deep))


for kind in ("int", "float"):
    Loader.add_constructor(f"tag:yaml.org,2002:{kind}", Loader.construct_number)


def check_finite(value: Any, where: str) -> None:
    """Raise UserError for NaN or infinity, which no bound of the schema keeps out."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"params: {where}: {value} is not a finite number")
    if isinstance(value, Mapping | list):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            check_finite(item, f"{where}.{key}" if where else str(key))


def nearest(name: str, names: Iterable[str]) -> str:
    """The one of `names` most like `name`, 'none' without any."""
    candidates = list(names)
    return (difflib.get_close_matches(name, candidates, 1, 0) or candidates or ["none"])[0]


def check_schema(params: Any, section: str | None = None) -> None:
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
        keys = list(error.schema["properties"])
        wrong = sorted(map(str, set(error.instance) - set(keys)))[0]
        raise UserError(
            f"params: unknown key {wrong!r} in {where}; nearest valid key: {nearest(wrong, keys)!r}"
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
    result: dict[str, Any] = {}
    for item in items:
        path, equals, text = item.partition("=")
        section, dot, key = path.partition(".")
        if not (equals and dot and section and key):
            raise UserError(f"--set {item}: expected section.key=value")
        try:
            value = numbers(yaml.load(text, Loader))
        except (yaml.YAMLError, ValueError) as error:
            raise UserError(f"--set {item}: the value is not YAML: {one_line(error)}") from None
        result = merge(result, {section: {key: value}})
    return result


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of a JSON text; ValueError if a key comes twice."""
    keys = [key for key, _ in pairs]
    repeats = [key for key in keys if keys.count(key) > 1]
    if repeats:
        raise ValueError(f"key {repeats[0]!r} comes twice")
    return dict(pairs)


def parse_json(text: str, option: str) -> Any:
    """The JSON of an option; UserError if it is none."""
    try:
        return numbers(json.loads(text, object_pairs_hook=without_repeats))
    except ValueError as error:
        raise UserError(f"{option}: not JSON: {error}") from None


def settings(args: argparse.Namespace, kind: type[Section]) -> Section:
    """The checked settings of a section: --config, or --params with --arm over it; --set over either.

    `kind` is the section's class in `pipeline.sections`. Raises UserError if they are wrong, and for
    --config beside what it would make void.
    """
    section = kind.__name__.lower()
    if args.config is not None:
        if args.params or args.arm is not None:
            raise UserError("--config is the section itself: give it, or --params and --arm, not both")
        values = parse_json(args.config, "--config")
    else:
        params = read_params(args.params or [Path("params.yaml")])
        if args.arm is not None:
            check_schema(params.get("arms"), "arms")
        params = apply_arm(params, args.arm)
        if section not in params:
            raise UserError(f"params: section {section!r} is missing")
        values = params[section]
    changes = overrides(args.set)
    if set(changes) - {section}:
        raise UserError(f"--set: this command reads section {section!r} only")
    if isinstance(values, Mapping):  # else `check_schema` refuses it
        values = merge(values, changes.get(section, {}))
    check_schema(values, section)
    return kind(**values)
