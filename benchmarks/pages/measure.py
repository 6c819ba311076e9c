"""Repeated, alternating measurements, and what else the machine did meanwhile."""

import math
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from pipeline.log import log

RESAMPLES = 2000  # of a bootstrap interval
MATMUL = 2048  # rows and columns of the matrices whose product is the peak
# A process's peak counts what its parent held when it was started: this one holds little.
STARTER = """
import resource, subprocess, sys
code = subprocess.call([sys.executable, "-m", *sys.argv[1:]], stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def alternate(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every side in every repeat, the sides in turn; every second repeat backwards (ABBA)."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(repeats):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            start = time.perf_counter()
            sides[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # a side's kernels may still run
            seconds[name].append(time.perf_counter() - start)
            log.info("repeat %d of %d: %s %.2f s", number + 1, repeats, name, seconds[name][-1])
    return seconds


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Quotient of each repeat."""
    return [a / b for a, b in zip(above, below, strict=True)]


def median_quotient(whole: Sequence[float], part: Sequence[float]) -> list[float]:
    """Median of `whole` / median of `part`, between the ends of its 95 % bootstrap interval.

    Infinite if the median of `part` is not above zero: it then vanishes in the noise.
    """

    def quotient(above: Sequence[float], below: Sequence[float]) -> float:
        middle = statistics.median(below)
        return statistics.median(above) / middle if middle > 0 else math.inf

    draw = random.Random(0)
    quotients = sorted(
        quotient(*(draw.choices(values, k=len(values)) for values in (whole, part))) for _ in range(RESAMPLES)
    )
    return [quotients[RESAMPLES // 40], quotient(whole, part), quotients[-RESAMPLES // 40]]


def spread(values: Sequence[float], form: str = ".3g") -> str:
    """Median, and minimum to maximum if there are several."""
    middle = format(statistics.median(values), form)
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}}–{max(values):{form}})"


def measured(*words: str) -> dict[str, float]:
    """Seconds and peak memory (GB, of the largest process) of `python -m WORDS`."""
    start = time.perf_counter()
    command = [sys.executable, "-S", "-c", STARTER, *words]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} failed")
    return {"seconds": time.perf_counter() - start, "peak": int(process.stdout) * 1024 / 1e9}


def matmul(dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    """A side that multiplies two matrices four times: `matmul_flops()` operations."""
    left, right = torch.randn(2, MATMUL, MATMUL).to(device, dtype)
    return lambda: [left @ right for _ in range(4)]


def matmul_flops() -> float:
    """Floating-point operations of one call of `matmul`'s side."""
    return 4 * 2 * MATMUL**3


class Load:
    """Processor time of this process, of others and stolen by the hypervisor, as shares of all cores."""

    def __init__(self) -> None:
        self.before, self.average = self._read(), os.getloadavg()[0]

    @staticmethod
    def _read() -> tuple[float, float, float]:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        own = sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")
        return sum(fields), fields[7], sum(fields) - fields[3] - fields[4] - fields[7] - own

    def since(self) -> str:
        """Other load since the start, in words."""
        total, steal, others = (now - then for now, then in zip(self._read(), self.before, strict=True))
        shares = (
            f"other processes {max(others, 0) / total:.0%}, stolen {steal / total:.0%} of the cores' time"
        )
        return f"load average {self.average:.1f} at the start; {shares}"


def machine(dtype: torch.dtype) -> str:
    """Processor or GPU, threads, precision and versions in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "processor")
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    precision = str(dtype).removeprefix("torch.")
    return (
        f"{name.strip()}, {torch.get_num_threads()} threads, passes in {precision}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
