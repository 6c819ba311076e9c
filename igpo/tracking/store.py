"""Runs in MLflow as a view of files: one per arm and seed, and per policy that wasn't trained.

A run is found again by the tag `igpo.key`. Points that are there already are not logged again; a run whose
points differ from the files is replaced.
"""

import fcntl
import hashlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from igpo.experiment import layout
from igpo.reporting import validation
from igpo.reporting.curves import curve_rows
from igpo.reporting.results import FURTHER, METRICS, mean, read_evaluation
from pipeline import storage
from pipeline.log import log
from pipeline.settings import apply_arm

URI = os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
NAME = "igpo"  # of the MLflow experiment
Points = dict[tuple[str, int], float]  # (metric, step) -> value
Runs = dict[str, Points]  # name of the run -> its points
LONGEST = 150  # characters of a part of a metric's name; MLflow allows 250 for all of it
LONGEST_VALUE = 6000  # characters of a parameter's value
BATCH_PARAMS, BATCH_METRICS = 100, 1000  # MLflow refuses more in one batch
SECTIONS = (
    "corpus",
    "index",
    "model",
    "questions",
    "warmup",
    "rollout",
    "score",
    "critic",
    "advantage",
    "train",
    "evaluate",
)


def metric_part(name: str) -> str:
    """A benchmark's or type's name as a part of a metric's name; other names never become the same.

    MLflow allows letters, digits and `_-. :/`. Any other character, `:`, `/` and a leading point become `:XX`
    for each byte in UTF-8; what is longer than `LONGEST` ends in a hash of the whole.
    """
    safe = quote(name, safe=" _-.").replace("%", ":").replace("~", ":7E")
    safe = f":2E{safe[1:]}" if safe.startswith(".") else safe
    return shortened(safe, name, LONGEST)


def shortened(text: str, whole: str, most: int) -> str:
    """A text of at most `most` characters: what is longer ends in a hash of the whole."""
    digest = hashlib.sha256(whole.encode()).hexdigest()[:16]
    return text if len(text) <= most else f"{text[: most - 20]}:::{digest}"


def collect(metrics: list[Path], iterations: list[Path], validations: Sequence[Path] = ()) -> Runs:
    """The points of every run: `train/…` by iteration, `test/BENCHMARK/…` at that of the evaluated policy.

    `dev/…` is by the updates that a policy has had.
    """
    runs: Runs = {}
    for path in metrics:
        evaluation = read_evaluation(path)
        points = runs.setdefault(path.absolute().parent.name, {})
        step = evaluation.metrics["provenance"].get("iteration") or 0
        for benchmark, values in evaluation.metrics["benchmarks"].items():
            for name in (*METRICS, *FURTHER):
                if (value := mean(values, name)) is not None:
                    points[f"test/{metric_part(benchmark)}/{name}", step] = value
    for row in curve_rows(iterations, validations):
        arm, seed, step, updates = (row.pop(key) for key in ("arm", "seed", "iteration", "updates"))
        points = runs.setdefault(f"{arm}_s{seed}", {})
        for name, value in row.items():
            if isinstance(value, int | float):
                dev = name in validation.DEV
                point = (f"dev/{name.removeprefix('dev_')}", updates) if dev else (f"train/{name}", step)
                points[point] = float(value)
    return runs


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """`section.key` and value of nested parameters; MLflow would cut a long value without a sign."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            text = json.dumps(value)
            yield f"{prefix}{key}", shortened(text, text, LONGEST_VALUE)


def run_params(params: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The settings behind run `name`: the stage sections, a judge's too, with its arm laid over them."""
    arm = layout.evaluations(params["run"])[name][0]
    settings = apply_arm(params, arm)
    # without a model its other settings say nothing, and runs keep the keys that they had
    judge = ("judge",) if settings["judge"]["model"] else ()
    return {section: settings[section] for section in (*SECTIONS, *judge)}


def run_key(name: str, settings: Mapping[str, Any]) -> str:
    """What identifies a run: more iterations or another table keep it, any other setting makes a new one."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    return f"{name}/{digest}"


def points_of(client: MlflowClient, run_id: str) -> Points:
    """The points that MLflow holds of a run."""
    names = client.get_run(run_id).data.metrics
    return {
        (point.key, point.step): point.value
        for name in names
        for point in client.get_metric_history(run_id, name)
    }


def is_same(left: float, right: float) -> bool:
    """Whether MLflow holds one value as the other: NaN as itself, infinity as the largest number."""
    if math.isnan(left) or math.isnan(right):
        return math.isnan(left) and math.isnan(right)
    most = sys.float_info.max
    return max(-most, min(left, most)) == max(-most, min(right, most))


@contextmanager
def alone() -> Iterator[None]:
    """Keep other processes of this folder from logging meanwhile: two would log the same points."""
    Path(".snakemake").mkdir(exist_ok=True)
    with Path(".snakemake/mlflow.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def sync(
    client: MlflowClient,
    where: str,
    name: str,
    points: Points,
    settings: Mapping[str, Any],
    status: str = "FINISHED",
) -> str:
    """Bring one run of experiment `where` up to date and give it a status; returns its id.

    A finished run is replaced if MLflow holds a metric that its files lack, or a later step of one.
    An earlier step stays: it is of the same run when it had fewer iterations.
    """
    key = run_key(name, settings)
    runs = client.search_runs([where], f"tags.`igpo.key` = '{key}'")
    run_id, old = (runs[0].info.run_id, points_of(client, runs[0].info.run_id)) if runs else (None, {})
    changed = any(not is_same(points[point], value) for point, value in old.items() if point in points)
    last = dict(sorted(points))
    gone = status == "FINISHED" and any(step > last.get(metric, -1) for metric, step in old)
    if run_id and (changed or gone):
        log.info("%s: the files have changed; its MLflow run is replaced", name)
        client.delete_run(run_id)
        run_id, old = None, {}
    if run_id is None:
        tags = {"igpo.key": key, "igpo.arm": re.sub(r"_s\d+$", "", name)}
        run_id = client.create_run(where, run_name=name, tags=tags).info.run_id
        items = [Param(*item) for item in flatten(settings)]
        for start in range(0, len(items), BATCH_PARAMS):
            client.log_batch(run_id, params=items[start : start + BATCH_PARAMS])
    now = int(time.time() * 1000)
    new = [
        Metric(metric, value, now, step)
        for (metric, step), value in sorted(points.items())
        if (metric, step) not in old
    ]
    for start in range(0, len(new), BATCH_METRICS):
        client.log_batch(
            run_id, metrics=new[start : start + BATCH_METRICS], tags=[RunTag("igpo.points", str(len(points)))]
        )
    if status == "RUNNING":
        client.update_run(run_id, status)
    else:
        client.set_terminated(run_id, status)
    return run_id


def open_store(uri: str) -> tuple[MlflowClient, str]:
    """A client of the store at `uri` and our experiment's id; either is made if it is missing."""
    mlflow.set_tracking_uri(uri)  # where traces go
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(NAME)
    # the kind makes the UI open on the runs and their curves
    kind = {"mlflow.experimentKind": "custom_model_development"}
    return client, experiment.experiment_id if experiment else client.create_experiment(NAME, tags=kind)


def log_inputs(client: MlflowClient, run_id: str, folders: Sequence[Path]) -> None:
    """Note which questions the evaluated or trained policies were asked, by the hashes in their metrics."""
    paths = [path for folder in folders if (path := folder / "metrics.json").exists()]
    digests = [storage.read_json(path)["provenance"].get("questions") for path in paths]
    context, inputs = [InputTag("mlflow.data.context", "questions")], []
    for digest in filter(None, dict.fromkeys(digests)):
        source = json.dumps({"sha256": digest})
        questions = Dataset(name="questions", digest=digest[:32], source_type="local", source=source)
        inputs.append(DatasetInput(questions, tags=context))
    if inputs:
        client.log_inputs(run_id, datasets=inputs)
