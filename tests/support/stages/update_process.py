"""The update stage as a process of its own."""

import subprocess
import sys
from pathlib import Path

from root import ROOT


def run(words: list[str], module: str = "igpo.train", path: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(command, cwd=path, capture_output=True, text=True, check=False)


def chosen(**settings: object) -> list[str]:
    """Options of the stage's command line."""
    return [word for key, value in settings.items() for word in ("--set", f"train.{key}={value}")]


def trained(words: list[str], out: Path, **settings: object) -> Path:
    process = run([*words, *chosen(**settings), "--out", str(out)])
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("igpo.train: loss") == 1
    return out
