"""A small results/ as the stages leave it, written with the same functions."""

import csv
import json
from pathlib import Path

from igpo import tables
from igpo.evaluate import METRICS
from igpo.experiment import checks, schema
from igpo.experiment.schema import PER_QUESTION
from pipeline import cost, storage


def block(f1: float, n: int = 4) -> dict:
    """One benchmark's metrics; everything but F1 is constant, gold_recall is unknown."""
    values = dict.fromkeys(METRICS, 0.5) | {"f1": f1}
    metrics = {
        name: {"mean": value, "low": value - 0.1, "high": value + 0.1} for name, value in values.items()
    }
    return {"n": n, **metrics, "gold_recall": None}


def write_evaluation(
    root: Path, name: str, benchmarks: dict[str, dict], iteration: int | None = None
) -> Path:
    """`evaluations/<name>/{metrics.json,questions.parquet}` below `root`; a question has its block's F1."""
    path = root / "evaluations" / name / "metrics.json"
    metrics = {
        "benchmarks": benchmarks,
        "types": {"capital": block(0.25)},
        "hops": {"1": block(0.25)},
        "overall": next(iter(benchmarks.values())),
        "provenance": {
            "arm": name,
            "iteration": iteration,
            "questions": "ab" * 32,
            "policy": f"{name} policy",
            "protocol": "igpo",
            "code": {"rollout": "1a", "evaluate": "2b"},
        },
    }
    storage.write_json(metrics, path)
    questions = [
        dict.fromkeys(METRICS, 0.5)
        | {"question_id": f"{benchmark}{i}", "benchmark": benchmark, "type": "capital", "covered": i > 0}
        | {"hops": 1 + i % 2}
        | {"f1": values["f1"]["mean"]}
        for benchmark, values in benchmarks.items()
        for i in range(values["n"])
    ]
    storage.write(questions, PER_QUESTION, path.with_name("questions.parquet"), ("question_id",))
    write_rollouts(path.parent)
    return path


def write_validation(root: Path, place: str, f1: float, hops: dict[str, float], policy: str = "") -> Path:
    """`<place>/validation/metrics.json` below `root`, of 8 dev questions with F1 by `hops`."""
    folder = root / place / "validation"
    metrics = {"overall": block(f1, 8), "hops": {name: block(value) for name, value in hops.items()}}
    storage.write_json({**metrics, "provenance": {"policy": policy}}, folder / "metrics.json")
    write_rollouts(folder)
    return folder


def write_validations(root: Path) -> list[Path]:
    """The warm start's validation and that of both seeds' last policies."""
    warm = write_validation(root, "warmup", 0.2, {"1": 0.3, "2": 0.1})
    ends = [
        write_validation(root, f"runs/igpo/s{seed}/002", 0.6, {"1": 0.6}, f"end-{seed}") for seed in (1, 2)
    ]
    return [warm, *ends]


def turn(number: int, **columns: object) -> dict:
    """A turn of trajectory 0 of question q1, with the key columns only."""
    return {"question_id": "q1", "sample": 0, "turn": number, **columns}


def write_rollouts(folder: Path) -> None:
    """One trajectory of a search and an answer."""
    blank = {"tool": None, "queries": [], "hit_ids": [], "observation": None, "answer": None, "stop": None}
    search = {"tool": "web_search", "queries": ["rome"], "hit_ids": ["a<b"], "observation": "Rome is old"}
    rollouts = [
        turn(0, policy_ids=[], policy_logprobs=[], observation_ids=[1, 2], text="", **blank),
        turn(
            1, policy_ids=[3], policy_logprobs=[-1.0], observation_ids=[4], text="<think>", **blank | search
        ),
        turn(
            2,
            policy_ids=[5],
            policy_logprobs=[-1.0],
            observation_ids=[],
            text="</answer>",
            **blank | {"answer": "Rome", "stop": "answered"},
        ),
    ]
    storage.write(rollouts, schema.ROLLOUTS, folder / "rollouts.parquet", schema.TURN_KEY)


def write_iteration(root: Path, arm: str, seed: int, k: int, f1: float) -> Path:
    """`runs/<arm>/s<seed>/<kkk>` below `root`: one trajectory of a search and an answer."""
    folder = root / "runs" / arm / f"s{seed}" / f"{k:03d}"
    acted = {"policy": f"{arm}-{k - 1}"}
    storage.write_json(
        {"overall": block(f1, 1), "benchmarks": {}, "provenance": acted}, folder / "metrics.json"
    )
    metrics = {"kl": 0.001 * k, "loss": -0.5, "policy_tokens": 100 * seed}
    storage.write_json({"metrics": metrics, "weights_sha256": f"{arm}-{k}"}, folder / "policy.json")
    health = {"flat_advantage": 0.25, "adaptivity": None, "update_tokens": 50 * seed}
    health |= {"warnings": [], "gold_logprob_start": -2.0, "gold_logprob_end": -1.5, "info_gain": 0.5}
    storage.write_json(health, folder / "health.json")
    empty = dict.fromkeys(("gold_logprob", "info_gain", "step_reward", "outcome", "f1", "em", "format_ok"))
    scores = [
        turn(0, **empty | {"gold_logprob": -2.0}, old_logprobs=[], ref_logprobs=[]),
        turn(
            1,
            **empty | {"gold_logprob": -1.5, "info_gain": 0.5, "step_reward": 0.5},
            old_logprobs=[-1.0],
            ref_logprobs=[-1.0],
        ),
        turn(
            2,
            **empty | {"outcome": f1, "f1": f1, "em": 0.0, "format_ok": True},
            old_logprobs=[-1.0],
            ref_logprobs=[-1.0],
        ),
    ]
    storage.write(scores, schema.SCORES, folder / "scores.parquet", schema.TURN_KEY)
    write_rollouts(folder)
    return folder


def write_results(root: Path) -> tuple[list[Path], list[Path]]:
    """Evaluations and iterations of closed book, warm start and arm igpo with seeds 1 and 2."""
    evaluations = [
        write_evaluation(root, "closed_book", {"vitalqa": block(0.1)}),
        write_evaluation(root, "warmup", {"vitalqa": block(0.4)}, 0),
        write_evaluation(root, "igpo_s1", {"vitalqa": block(0.5)}, 2),
        write_evaluation(root, "igpo_s2", {"vitalqa": block(0.7)}, 2),
    ]
    folders = [write_iteration(root, "igpo", seed, k, 0.3 + 0.1 * k) for seed in (1, 2) for k in (1, 2)]
    return evaluations, folders


def write_asked(folder: Path, question: str = "?") -> dict[str, Path]:
    """The training question, called so, and its coverage, by the report's options."""
    row = {"question_id": "q1", "benchmark": "vitalqa", "question": question, "answers": ["Rome"]}
    row |= {"supporting_ids": ["a<b"], "hops": 1, "split": "train", "type": "capital"}
    storage.write([row], schema.QUESTIONS, folder / "train.parquet", schema.QUESTIONS_KEY)
    coverage = {"n": 4, "answer_in_corpus": 1.0, "answer_at": {"1": 0.5}, "gold_at": {"1": 0.5}}
    coverage |= {"all_gold_at": {"1": 0.5}, "chance_answer_at": {"1": 0.0}}
    storage.write_json({"benchmarks": {"vitalqa": coverage}, "uncovered": []}, folder / "coverage.json")
    return {"coverage": folder / "coverage.json", "questions": folder / "train.parquet"}


def command(evaluations: list[Path], folders: list[Path], *dev: Path, **options: object) -> list[str]:
    """The arguments that tables, report and track share; `dev` are validations."""
    named = [item for key, value in options.items() for item in (f"--{key}", str(value))]
    return [*named, "--metrics", *map(str, evaluations), "--iterations", *map(str, folders)] + (
        ["--validations", *map(str, dev)] if dev else []
    )


def config(**sections: object) -> str:
    """Sections as the JSON that a rule passes."""
    return json.dumps(sections)


def write_cost(path: Path, seconds: float, ended: float = 0.0, **values: object) -> None:
    """What a stage that took so many seconds cost."""
    values = {"tokens": 5, "device": None, "threads": 2, "peak_bytes": 10**9, "phases": {}} | values
    storage.write_json(values | {"began": ended - seconds, "ended": ended, "seconds": seconds}, path)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


COMPARED = {"baseline": "warmup", "rows": {"igpo": "IGPO"}}
TABLES = {"baseline": "closed_book", "metric": "f1", "bootstrap": 200, "seed": 0}
TABLES_CONFIG = config(**TABLES, **dict.fromkeys(checks.COMPARISONS, COMPARED), collapse=["igpo"])


def tables_of(
    inputs: tuple[list[Path], list[Path]], out: Path, config: str = TABLES_CONFIG
) -> dict[str, bytes]:
    """The files that the tables stage writes into `out`, its costs aside, by name."""
    tables.main(command(*inputs, config=config, out=out))
    files = sorted(path for path in out.iterdir() if path != cost.path(out, "tables"))
    return {path.name: path.read_bytes() for path in files}
