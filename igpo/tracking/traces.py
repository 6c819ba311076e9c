"""Sampled trajectories as MLflow traces: an agent's span, in it one of each turn, in it one of its search.

A span's times are the rollout's, from its costs; those of its logging if the costs have none.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import SpanType

from igpo.experiment import schema
from igpo.reporting.folders import WORTH, trajectories
from pipeline import cost, storage

TRACES = 2  # trajectories of a folder of rollouts
TAG = "igpo.traced"  # of a run: the folders whose trajectories it has


def log_traces(client: MlflowClient, where: str, run_id: str, folders: Sequence[Path]) -> None:
    """Log the first trajectories of every folder whose have not been logged to the run."""
    # last parts alone, which differ within a run: a tag has 8,000 characters, and a run 999 iterations
    before = [name.rpartition("/")[2] for name in json.loads(client.get_run(run_id).data.tags.get(TAG, "[]"))]
    for parts in [folder.absolute().parts for folder in folders]:
        if parts[-1] in before:
            continue
        folder, name = Path(*parts), "/".join(parts[-3:])
        times = clocks(folder)
        for rows in trajectories(folder)[:TRACES]:
            log_trace(where, run_id, name, rows, times)
        before.append(parts[-1])
    client.set_tag(run_id, TAG, json.dumps(before))


def attributes(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a turn was worth, as far as it is known."""
    values = {column: row.get(column) for column in (*WORTH.values(), "outcome", "f1", "stop")}
    return {name: value for name, value in values.items() if value is not None}


Clocks = dict[tuple[str, int], list[list[int]]]


def clocks(folder: Path) -> Clocks:
    """Times of the turns of a folder's trajectories, in nanoseconds since 1970, if its costs have them."""
    path = cost.path(folder / "rollouts.parquet", "rollout")
    rows = storage.read_json(path).get("clock", []) if path.exists() else []
    return {
        (question_id, sample): [[round(seconds * 1e9) for seconds in turn] for turn in turns]
        for question_id, sample, turns in rows
    }


def log_trace(where: str, run_id: str, name: str, rows: schema.Rows, times_of: Clocks) -> None:
    """Log one trajectory, with its times if `times_of` has them."""
    first, last = rows[0], rows[-1]
    clock = times_of.get((first["question_id"], first["sample"]), [])
    root = mlflow.start_span_no_context(
        f"{name}: {first['question_id']}",
        SpanType.AGENT,
        inputs={"question_id": first["question_id"], "sample": first["sample"]},
        attributes=attributes(first),
        metadata={"mlflow.sourceRun": run_id},
        experiment_id=where,
        start_time_ns=clock[0][0] if clock else None,
    )
    untimed: list[list[int]] = [[] for _ in rows[1 + len(clock) :]]
    for number, (row, times) in enumerate(zip(rows[1:], [*clock, *untimed], strict=True), start=1):
        begin, generated, end = (times[0], times[1], times[-1]) if times else (None, None, None)
        turn = mlflow.start_span_no_context(
            f"turn {number}", SpanType.LLM, root, attributes=attributes(row), start_time_ns=begin
        )
        if row["queries"]:
            search = mlflow.start_span_no_context(
                row["tool"] or "search",
                SpanType.RETRIEVER,
                turn,
                inputs={"queries": row["queries"]},
                start_time_ns=generated,
            )
            documents = [{"page_content": row["observation"] or "", "metadata": {"ids": row["hit_ids"]}}]
            search.end(outputs=documents, end_time_ns=end)
        turn.end(outputs={"text": row["text"]}, end_time_ns=end)
    root.end(
        outputs={"answer": last["answer"], "stop": last["stop"]}, end_time_ns=clock[-1][-1] if clock else None
    )
