"""Dry runs of the workflow."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from root import ROOT


def snakemake(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """A dry run in a folder."""
    command = [sys.executable, "-m", "snakemake", *words, "--snakefile", str(ROOT / "Snakefile"), "-n"]
    return subprocess.run([*command, "--directory", str(folder)], capture_output=True, text=True, cwd=ROOT)


def plans(folder: Path, targets: str, *options: str) -> Counter:
    """How often each rule would run for `targets` in an empty folder; of kept policies or not is all one."""
    process = snakemake(folder, *targets.split(), *options)
    assert process.returncode == 0, process.stderr
    return Counter(
        re.findall(r"^(?:local)?rule (\w+?)(?:_kept)?:", process.stdout + process.stderr, re.MULTILINE)
    )
