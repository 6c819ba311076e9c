"""Data files of installed packages."""

import importlib.util
from pathlib import Path

from pipeline.errors import UserError


def package_file(package: str, path: str) -> Path:
    """A data file or folder of an installed package, which is not imported; UserError when missing."""
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or []:
        if (Path(folder) / path).exists():
            return Path(folder) / path
    raise UserError(f"{package}/{path} is not installed; install the locked requirements")
