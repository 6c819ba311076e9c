"""The classes of sections are what the schema has."""

import dataclasses

import pytest
import yaml

from pipeline import sections
from pipeline.settings import SCHEMA

PROPERTIES = yaml.safe_load(SCHEMA.read_text())["properties"]
CLASSES = {name.lower(): kind for name, kind in vars(sections).items() if dataclasses.is_dataclass(kind)}
TYPES = {"string": str, "integer": int, "number": float, "boolean": bool, "null": type(None)}


def test_every_section_of_a_stage_has_a_class():
    assert PROPERTIES.keys() - CLASSES.keys() == {"run", "arms"}  # of the experiment as a whole
    assert CLASSES.keys() <= PROPERTIES.keys()


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_has_the_keys_and_plain_types_of_its_section(name):
    described = PROPERTIES[name]["properties"]
    fields = {field.name: field.type for field in dataclasses.fields(CLASSES[name])}
    assert fields.keys() == described.keys()
    for key, annotation in fields.items():
        kinds = described[key].get("type", "string")
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if set(kinds) <= TYPES.keys():
            expected = TYPES[kinds[0]]
            for kind in kinds[1:]:
                expected |= TYPES[kind]
            assert annotation == (expected | None if type(None) in map(TYPES.get, kinds) else expected), key
