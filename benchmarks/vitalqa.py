"""What the base model knows of VitalQA without search, by type of question -> docs/results/vitalqa.md.

    python -m benchmarks.vitalqa

Needs a finished run in results/. All questions of all splits, greedy, with the examples of the baseline
`closed_book`. The page also prints a seeded sample of questions with what states their answers.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa

from igpo import evaluate, rollout
from igpo.experiment import schema
from pipeline import storage
from pipeline.settings import apply_arm, merge, read_params

RESULTS = Path("results")
WORK = RESULTS / "benchmarks/vitalqa"
SAMPLE, SEED = 100, 20261122
PAGE = """\
# VitalQA: what needs a search, and what its questions look like

Made by `python -m benchmarks.vitalqa` from a finished run.

## Closed book: {n} questions of all splits

F1 in per cent of the base model with six examples in its prompt and no search, greedy, with 95 % bootstrap
intervals.

{types}

## A sample of {sample}

Drawn with seed {seed} from all splits; under each question the beginning of the passages that state its
answer.

{questions}
"""


def settings() -> dict[str, Any]:
    """The parameters of the baseline `closed_book`, for every question of every benchmark."""
    params = apply_arm(read_params([Path("params.yaml")]), "closed_book")
    every: dict[str, Any] = {"questions": None, "benchmarks": []}
    return {**params, "rollout": merge(params["rollout"], params["evaluate"]["rollout"]) | every}


def answer_all(questions: Path) -> dict[str, Any]:
    """The metrics of the closed-book answers to all questions, by the stages themselves."""
    params, rollouts, metrics = settings(), WORK / "rollouts.parquet", WORK / "metrics.json"
    base = ["--policy", str(RESULTS / "models/base"), "--questions", str(questions), "--out", str(rollouts)]
    rollout.main([*base, "--config", json.dumps(params["rollout"])])
    files = ["--rollouts", str(rollouts), "--questions", str(questions), "--out", str(metrics)]
    evaluate.main([*files, "--config", json.dumps(params["evaluate"])])
    return dict(storage.read_json(metrics))


def type_lines(metrics: dict[str, Any]) -> str:
    """F1 by benchmark and type."""
    values_by_type = {tuple(name.split(": ")): values for name, values in metrics["types"].items()}
    values_by_type |= {(name, "all"): values for name, values in metrics["benchmarks"].items()}
    lines = ["| benchmark | type | questions | F1 |", "| --- | --- | ---: | ---: |"]
    for (benchmark, name), values in sorted(values_by_type.items()):
        mean, low, high = (f"{100 * values['f1'][key]:.1f}" for key in ("mean", "low", "high"))
        lines.append(f"| {benchmark} | {name} | {values['n']:,} | {mean} [{low}, {high}] |")
    return "\n".join(lines)


def sample_lines(rows: list[dict[str, Any]], corpus: pa.Table) -> str:
    """Questions, answers and the passages behind them."""
    texts = {row["id"]: f"{row['title']}: {row['text']}" for row in corpus.to_pylist()}
    lines = []
    for number, row in enumerate(random.Random(SEED).sample(rows, SAMPLE), 1):
        lines.append(f"{number}. {row['question']} **{row['answers'][0]}**")
        lines += [f"   * {texts[name][:160]} …" for name in row["supporting_ids"]]
    return "\n".join(lines)


def main() -> None:
    """Ask, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results/vitalqa.md"), metavar="FILE")
    args = parser.parse_args()
    files = [RESULTS / f"questions/{split}.parquet" for split in ("train", "dev", "test")]
    rows = [row for file in files for row in storage.read(file, schema.QUESTIONS).to_pylist()]
    questions_file = WORK / "questions.parquet"
    storage.write(rows, schema.QUESTIONS, questions_file, schema.QUESTIONS_KEY)
    text = PAGE.format(
        n=f"{len(rows):,}",
        types=type_lines(answer_all(questions_file)),
        sample=SAMPLE,
        seed=SEED,
        questions=sample_lines(rows, storage.read(RESULTS / "corpus.parquet", storage.CORPUS)),
    )
    with storage.replacing(args.out) as path:
        path.write_text(text)


if __name__ == "__main__":
    main()
