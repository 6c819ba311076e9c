"""Sampled trajectories as MLflow traces: an agent's span, in it one of each turn, in it one of its search.

Tables hold no clock times, so a span's times are those of its logging.
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

TRACES = 2  # trajectories of a folder of rollouts
TAG = "igpo.traced"  # of a run: the folders whose trajectories it has


def log_traces(client: MlflowClient, where: str, run_id: str, folders: Sequence[Path]) -> None:
    """Log the first trajectories of every folder whose have not been logged to the run."""
    # last parts alone, which differ within a run: a tag has 8,000 characters, and a run 999 iterations
    before = [name.rpartition("/")[2] for name in json.loads(client.get_run(run_id).data.tags.get(TAG, "[]"))]
    for parts in [folder.absolute().parts for folder in folders]:
        if parts[-1] in before:
            continue
        for rows in trajectories(Path(*parts))[:TRACES]:
            log_trace(where, run_id, "/".join(parts[-3:]), rows)
        before.append(parts[-1])
    client.set_tag(run_id, TAG, json.dumps(before))


def attributes(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a turn was worth, as far as it is known."""
    values = {column: row.get(column) for column in (*WORTH.values(), "outcome", "f1", "stop")}
    return {name: value for name, value in values.items() if value is not None}


def log_trace(where: str, run_id: str, name: str, rows: schema.Rows) -> None:
    """Log one trajectory."""
    first, last = rows[0], rows[-1]
    root = mlflow.start_span_no_context(
        f"{name}: {first['question_id']}",
        SpanType.AGENT,
        inputs={"question_id": first["question_id"], "sample": first["sample"]},
        attributes=attributes(first),
        metadata={"mlflow.sourceRun": run_id},
        experiment_id=where,
    )
    for number, row in enumerate(rows[1:], start=1):
        values = attributes(row)
        turn = mlflow.start_span_no_context(f"turn {number}", SpanType.LLM, root, attributes=values)
        if row["queries"]:
            search = mlflow.start_span_no_context(
                row["tool"] or "search", SpanType.RETRIEVER, turn, inputs={"queries": row["queries"]}
            )
            documents = [{"page_content": row["observation"] or "", "metadata": {"ids": row["hit_ids"]}}]
            search.end(outputs=documents)
        turn.end(outputs={"text": row["text"]})
    root.end(outputs={"answer": last["answer"], "stop": last["stop"]})
