"""What the paper's experiment would take on GPUs -> docs/results/plan.md, by `igpo plan`.

python -m benchmarks.plan
"""

import contextlib
import io
import re
import tempfile
from pathlib import Path

from igpo import plan
from pipeline import storage

GPU = "H100"
MACHINES = ((1, 1), (8, 1), (8, 4))  # GPUs of a machine, machines
ASSUMED = {
    "--weights": "7.6e9",
    "--questions": "test=3197",
    "--passages": "21e6",
    "--tokens": "8000",
    "--sampled": "3000",
}
OPTIONS = [
    "--params",
    "params.yaml",
    "--params",
    "experiments/paper.yaml",
    *(word for each in ASSUMED.items() for word in each),
]
HEAD = """\
# What the paper's experiment would take

`experiments/paper.yaml`: six runs of 60 updates, each of 512 trajectories. Nothing here was measured: `igpo
plan` counts operations (`igpo/reporting/gpu_time.py`) with the shares of a GPU's peaks that it
names, for trajectories of 8,000 tokens, 3,000 of them sampled: assumptions, since the paper prints neither.
Shards spread rollouts and scores over all GPUs; without them each takes one. The sum is of all runs one after
another, with validations and evaluations.

Made by `python -m benchmarks.plan`; one line of it is

    igpo plan {options} --gpu {gpu} --gpus 8 --nodes 4

| on | shards | rollout | score | train | bounds it | all runs | GPU hours |
| --- | --- | ---: | ---: | ---: | --- | ---: | ---: |
"""


def printed(gpus: int, nodes: int) -> dict[str, tuple[str, str]]:
    """Name -> (value, note) of the lines that `igpo plan` prints."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), tempfile.TemporaryDirectory() as nothing_measured:
        plan.main(
            [*OPTIONS, "--root", nothing_measured, "--gpu", GPU, "--gpus", str(gpus), "--nodes", str(nodes)]
        )
    cells = [re.split(r" {2,}", line.strip()) for line in text.getvalue().splitlines()]
    return {name: (value, note) for name, value, note, *_ in ([*line, "", ""] for line in cells)}


def rows(gpus: int, nodes: int) -> list[str]:
    """Two rows of the table: with shards and without."""
    lines, result = printed(gpus, nodes), []
    for how in ("with shards", "without shards"):
        _, note = lines[f"an iteration {how}"]
        hours, gpu_note = lines[f"all runs {how}"]
        phases = re.findall(r"\w+ ([\d,]+ s)", note)
        bound = re.search(r"(\w+) bounds it", note)
        cells = [f"{gpus * nodes} x {GPU}", how.split()[0], *phases, bound[1] if bound else "", hours]
        result.append(f"| {' | '.join([*cells, gpu_note.partition(' GPU hours')[0]])} |\n")
    return result


def main() -> None:
    """Write the page."""
    lines = printed(8, 1)
    disk, without = lines["disk in total"]
    text = HEAD.format(options=" ".join(OPTIONS), gpu=GPU)
    text += "".join(row for machine in MACHINES for row in rows(*machine))
    text += f"\nDisk: {disk} at most, {without}. Kept policies and training states are"
    text += (
        f" {lines['disk of policies'][0]} of it: the last and the best of each run (`run.keep_policies`).\n"
    )
    with storage.replacing(Path("docs/results/plan.md")) as path:
        path.write_text(text)


if __name__ == "__main__":
    main()
