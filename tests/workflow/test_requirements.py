"""The lock: with the empty packages of requirements/absent every dependency is in it."""

import tomllib
from importlib import metadata

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from root import ROOT


def absent() -> dict[str, str]:
    """Versions of the empty packages."""
    files = (ROOT / "requirements/absent").glob("*/pyproject.toml")
    projects = [tomllib.loads(file.read_text())["project"] for file in files]
    return {project["name"]: project["version"] for project in projects}


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements/cpu.txt").read_text().splitlines()
    lines += (ROOT / "requirements/torch-cpu.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if not line.startswith(("#", "-r "))]
    pins = [pin for pin in requirements if not pin.marker or pin.marker.evaluate()]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}


def test_the_lock_and_the_empty_packages_satisfy_every_requirement():
    have = {name: metadata.version(name) for name in locked()} | absent()
    pairs = [
        (name, requirement)
        for name in locked()
        for requirement in map(Requirement, metadata.requires(name) or [])
        if not requirement.marker or requirement.marker.evaluate({"extra": ""})
    ]
    assert len(pairs) > 500
    for name, requirement in pairs:
        version = have.get(canonicalize_name(requirement.name), "")
        assert version, (name, requirement)
        assert requirement.specifier.contains(version, prereleases=True), (name, requirement, version)


def test_the_lock_leaves_out_the_absent_and_conda_installs_them_empty():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = (entry["pip"] for entry in dependencies if isinstance(entry, dict))
    empty = [f"./requirements/absent/{name}" for name in sorted(absent())]
    torch_page = "--find-links https://download.pytorch.org/whl/cpu/torch/"
    assert pip == [torch_page, "-r requirements/cpu.txt", *empty, "-e ."]
    assert not absent().keys() & locked().keys()
