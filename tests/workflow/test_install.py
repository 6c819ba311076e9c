"""`make env`, and conda's pip, against indexes of made-up wheels: where torch's CPU build is taken from."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from root import ROOT
from web import served

pytestmark = pytest.mark.slow

FILES = ("Makefile", "requirements/install.sh", "requirements/torch-cpu.txt")
BACKEND = """import shutil
def build_editable(folder, config_settings=None, metadata_directory=None):
    return shutil.copy("igpo-1.0-py3-none-any.whl", folder) and "igpo-1.0-py3-none-any.whl"
"""
BROKEN = 'raise ImportError("libcudnn.so.9: cannot open shared object file")'


def write_wheel(folder: Path, name: str, version: str, code: str = "") -> None:
    """A wheel of one module."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        info = f"{name}-{version}.dist-info"
        wheel.writestr(f"{name}.py", code)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def indexes(tmp_path):
    """(folder, address): every folder below is an index, for it lists a folder of wheels for each package."""
    with served(tmp_path / "indexes") as address:
        yield tmp_path / "indexes", address


@pytest.fixture
def pip_settings(indexes):
    """The environment of a pip that knows the index `own` and a folder that is not there."""
    # MAKELEVEL and MAKEFLAGS go too: below `make test`, a make also prints its folder
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE"))}
    own = {"PIP_INDEX_URL": f"{indexes[1]}/own", "PIP_FIND_LINKS": "/no/such/folder", "NO_PROXY": "127.0.0.1"}
    return settings | own | {"PIP_CONFIG_FILE": os.devnull}


@pytest.fixture
def checkout(tmp_path):
    """What `make env` reads of the repository, with a lock of torch and one package more."""
    folder = tmp_path / "checkout"
    (folder / "requirements").mkdir(parents=True)
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    (folder / "requirements/cpu.txt").write_text("more==1.0\n-r torch-cpu.txt\n")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (folder / "backend.py").write_text(BACKEND)
    write_wheel(folder, "igpo", "1.0")
    return folder


def make_env(checkout, indexes, pip_settings) -> subprocess.CompletedProcess:
    """`make env` there; PyTorch's index is the index `pytorch`."""
    words = ["make", "env", f"PYTHON={sys.executable}", f"TORCH_INDEX={indexes[1]}/pytorch"]
    return subprocess.run(words, cwd=checkout, env=pip_settings, capture_output=True, text=True)


def installed(checkout) -> set[str]:
    """Names and versions of what is installed there, without what a new environment has."""
    (packages,) = (checkout / ".venv/lib").glob("*/site-packages")
    names = {path.stem for path in packages.glob("*.dist-info")}
    return {name for name in names if not name.startswith(("pip-", "setuptools-"))}


def test_the_cpu_build_of_pips_own_index_is_taken(checkout, indexes, pip_settings):
    write_wheel(indexes[0] / "own/more", "more", "1.0")
    write_wheel(indexes[0] / "own/torch", "torch", "2.13.0", BROKEN)
    write_wheel(indexes[0] / "own/torch", "torch", "2.13.0+cpu")
    process = make_env(checkout, indexes, pip_settings)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.splitlines() == ["installing pinned packages into .venv: about 5 minutes"]
    assert installed(checkout) == {"torch-2.13.0+cpu", "more-1.0", "igpo-1.0"}
    assert (checkout / ".venv/.made").exists()


def test_an_environment_that_a_kill_left_without_pip_is_made_whole(checkout, indexes, pip_settings):
    write_wheel(indexes[0] / "own/more", "more", "1.0")
    write_wheel(indexes[0] / "own/torch", "torch", "2.13.0+cpu")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=checkout, check=True)
    process = make_env(checkout, indexes, pip_settings)
    assert (process.returncode, process.stderr) == (0, "")
    assert installed(checkout) == {"torch-2.13.0+cpu", "more-1.0", "igpo-1.0"}


def test_else_pytorchs_index_is_asked_for_torch_alone(checkout, indexes, pip_settings):
    write_wheel(indexes[0] / "own/more", "more", "1.0")
    write_wheel(indexes[0] / "own/torch", "torch", "2.13.0", BROKEN)
    write_wheel(indexes[0] / "pytorch/torch", "torch", "2.13.0+cpu")
    write_wheel(indexes[0] / "pytorch/more", "more", "1.0+planted")
    process = make_env(checkout, indexes, pip_settings)
    assert (process.returncode, process.stderr) == (0, "")
    notice = f"pip's index gives no CPU build of torch: asking {indexes[1]}/pytorch"
    assert process.stdout.splitlines() == ["installing pinned packages into .venv: about 5 minutes", notice]
    assert installed(checkout) == {"torch-2.13.0+cpu", "more-1.0", "igpo-1.0"}


def test_without_a_cpu_build_one_line_says_so_and_the_next_make_tries_again(checkout, indexes, pip_settings):
    write_wheel(indexes[0] / "own/more", "more", "1.0")
    write_wheel(indexes[0] / "own/torch", "torch", "2.13.0", BROKEN)
    process = make_env(checkout, indexes, pip_settings)
    error, from_make = process.stderr.splitlines()
    assert error == (
        "error: no CPU build of torch (requirements/torch-cpu.txt): pip's index and "
        f"{indexes[1]}/pytorch have none, or can't be reached; name an index that has it: "
        "make env TORCH_INDEX=URL"
    )
    assert from_make.startswith("make: *** ")
    assert process.returncode == 2
    assert not (checkout / ".venv/.made").exists()
    write_wheel(indexes[0] / "pytorch/torch", "torch", "2.13.0+cpu", BROKEN)
    process = make_env(checkout, indexes, pip_settings)
    assert process.stderr.startswith(
        "error: torch is installed but can't be imported: ImportError: libcudnn.so.9: cannot open shared "
        "object file; install the library that this names, or, if it is one of NVIDIA's, remove .venv"
    )
    assert not (checkout / ".venv/.made").exists()
    (indexes[0] / "own/more/more-1.0-py3-none-any.whl").unlink()
    shutil.rmtree(checkout / ".venv/lib/python3.11/site-packages/more-1.0.dist-info")
    process = make_env(checkout, indexes, pip_settings)
    assert "ERROR: No matching distribution found for more==1.0" in process.stderr
    assert not (checkout / ".venv/.made").exists()


def test_condas_pip_takes_torch_alone_from_pytorchs_page(checkout, indexes, pip_settings, tmp_path):
    write_wheel(indexes[0] / "own/more", "more", "1.0")
    write_wheel(indexes[0] / "own/torch", "torch", "2.13.0", BROKEN)
    write_wheel(indexes[0] / "pytorch/torch", "torch", "2.13.0+cpu")
    write_wheel(indexes[0] / "pytorch/more", "more", "1.0+planted")
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (lines,) = (entry["pip"] for entry in dependencies if isinstance(entry, dict))
    requirements = [line for line in lines if line.startswith(("--", "-r"))]  # conda writes them to a file
    text = "\n".join(requirements).replace("https://download.pytorch.org/whl/cpu", f"{indexes[1]}/pytorch")
    (checkout / "conda.txt").write_text(text)
    words = ["pip", "download", "-qq", "-r", "conda.txt", "--dest", str(tmp_path / "got")]
    subprocess.run([sys.executable, "-m", *words], cwd=checkout, env=pip_settings, check=True)
    got = {path.name.removesuffix("-py3-none-any.whl") for path in (tmp_path / "got").iterdir()}
    assert got == {"torch-2.13.0+cpu", "more-1.0"}
