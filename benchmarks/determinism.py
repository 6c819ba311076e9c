"""What depends on the batch on this machine -> docs/results/determinism.md: query vectors, tokens, gains.

    python -m benchmarks.determinism    # after the default run

Everything is asked all at once, in halves, alone and in random companies: what depends on its own input alone
comes out the same.
"""

import argparse
import dataclasses
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.pages import measure
from igpo import score
from igpo.acting.engine import Request, open_engine
from igpo.experiment import schema
from igpo.experiment.policy import load_tokenizer
from igpo.reporting.text import markdown_table
from pipeline import sections, storage
from pipeline.devices import compute_dtype
from pipeline.settings import read_params
from retrieval.encoder.encoder import open_encoder

SEQUENCES, NEW_TOKENS, QUERIES, COMPANIES = 16, 24, 64, 2
BATCH_TOKENS = (8192, 900, 300)
PAGE = """\
# What depends on the batch

Made by `python -m benchmarks.determinism` from the default run's files. Made on: {machine}.

## By default

{default}

Query vectors are part of a server's promise and never depend on what else is asked. Sampled tokens and gains
do if the table says so: the same settings and files give the same bytes on the same processor, another
`rollout.at_once`, `rollout.questions` or `score.batch_tokens` may not.

With `rollout.exact` (the default) trajectories are sampled in fixed batches of `rollout.at_once`, each with
an empty cache of prompts. So the number of shards, and what an engine did before, change no token on any
processor. An update has one order of sums, whatever the threads do: two runs give the same weights.

## Exactly

{exact}

With `rollout.engine=transformers` a sequence is sampled by itself, and with `score.passes=naive` a gold
answer is scored by itself: neither can depend on a batch, on any processor. The price is the last column.
"""


def companies(number: int) -> list[list[list[int]]]:
    """Ways to ask `number` inputs: all at once, in halves, each alone, and in random companies."""
    everything = list(range(number))
    draw = random.Random(0)
    orders = [draw.sample(everything, number) for _ in range(COMPANIES)]
    cuts = [sorted(draw.sample(range(1, number), 3)) for _ in orders]
    random_parts = [
        [order[low:high] for low, high in zip([0, *ends], [*ends, number], strict=True)]
        for order, ends in zip(orders, cuts, strict=True)
    ]
    halves = [everything[: number // 2], everything[number // 2 :]]
    return [[everything], halves, [[one] for one in everything], *random_parts]


def differing(ask: Callable[[list[int]], Sequence[Any]], number: int, ways: list[list[list[int]]]) -> int:
    """How many of the inputs have another result in some way of asking than in the first."""
    all_results = []
    for company in ways:
        results: dict[int, Any] = {}
        for part in company:
            results |= zip(part, ask(part), strict=True)
        all_results.append(results)
    return sum(any(results[one] != all_results[0][one] for results in all_results) for one in range(number))


def query_vectors(questions: list[str], root: Path) -> int:
    """Of so many questions, how many have a vector that depends on the others."""
    encoder = open_encoder(storage.read_json(root / "index/dense/manifest.json")["settings"])
    return differing(
        lambda part: [row.tobytes() for row in encoder.queries([questions[one] for one in part])],
        QUERIES,
        companies(QUERIES),
    )


def sequences(prompts: list[list[int]], policy: Path, params: sections.Rollout) -> tuple[list[int], float]:
    """(Sequences that depend on the others: greedy, sampled; seconds for all at once, sampled)."""
    tokenizer = load_tokenizer(policy)
    engine = open_engine(policy, params.engine, params.max_tokens, tokenizer, stops=False)
    counts = []
    for temperature in (0.0, 1.0):

        def ask(part: list[int], temperature: float = temperature) -> list[tuple[int, ...]]:
            requests = [Request(prompts[one], one) for one in part]
            return [
                tuple(generation.ids) for generation in engine.generate(requests, NEW_TOKENS, temperature)
            ]

        ways = companies(SEQUENCES)
        if params.engine == "transformers":  # which samples one after another: all, and all in another order
            ways = [ways[0], [ways[0][0][::-1]]]
        counts.append(differing(ask, SEQUENCES, ways))
    start = time.perf_counter()
    ask(list(range(SEQUENCES)))
    return counts, time.perf_counter() - start


def gains(root: Path, out: Path, **settings: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """(log-probabilities of gold answers, gains, seconds) of the first iteration under these settings."""
    first = root / "runs/igpo/s1/001"
    options = [word for key, value in settings.items() for word in ("--set", f"score.{key}={value}")]
    start = time.perf_counter()
    score.main(
        [
            *("--params", "params.yaml", "--arm", "igpo", "--policy", str(root / "warmup"), *options),
            *("--rollouts", str(first / "rollouts.parquet"), "--out", str(out)),
            *("--questions", str(root / "questions/train.parquet")),
        ]
    )
    seconds = time.perf_counter() - start
    table: pa.Table = storage.read(out, schema.SCORES)
    columns = [np.array(table[name].to_pylist(), float) for name in ("gold_logprob", "info_gain")]
    return columns[0], columns[1], seconds


def gain_row(
    name: str, result: tuple[np.ndarray, np.ndarray, float], first: Any, seconds: float
) -> list[str]:
    """A table's row of gains, compared with `first`."""
    logprobs, info_gains, took = result
    largest = float(np.nanmax(np.abs(logprobs - first[0])))
    return [
        f"gains, {name}",
        f"mean {np.nanmean(info_gains):+.4f}, s_t off by at most {largest:.4f}",
        f"{took / seconds:.1f}",
    ]


def run(root: Path) -> str:
    """The page."""
    params = read_params([Path("params.yaml")])
    rollout = sections.Rollout(**params["rollout"])
    queries = storage.read(root / "questions/train.parquet", schema.QUESTIONS)["question"].to_pylist()[
        :QUERIES
    ]
    rows = storage.read(root / "runs/igpo/s1/001/rollouts.parquet", schema.ROLLOUTS).to_pylist()
    prompts = [row["observation_ids"] for row in rows if row["turn"] == 0][: 2 * SEQUENCES : 2]
    work = root / "benchmarks/determinism"
    vectors = query_vectors(queries, root)
    batch_counts, plain_seconds = sequences(prompts, root / "warmup", rollout)
    alone = dataclasses.replace(rollout, engine="transformers")
    single, single_seconds = sequences(prompts, root / "warmup", alone)
    gains_by_tokens = {
        tokens: gains(root, work / f"{tokens}.parquet", batch_tokens=tokens) for tokens in BATCH_TOKENS
    }
    base = gains_by_tokens[BATCH_TOKENS[0]]
    naive = gains(root, work / "naive.parquet", passes="naive")
    wide = gains(root, work / "fp32.parquet", dtype="float32")
    heads = ["what", "depends on the batch", "time, default = 1"]

    def tokens(kind: str, counts: Sequence[int], seconds: float) -> list[list[str]]:
        return [
            [f"{name} sequences, {kind}", f"{count} of {SEQUENCES}", f"{seconds / plain_seconds:.1f}"]
            for name, count in zip(("greedy", "sampled"), counts, strict=True)
        ]

    default = [
        ["query vectors", f"{vectors} of {QUERIES}", "–"],
        *tokens(rollout.engine, batch_counts, plain_seconds),
        *(
            gain_row(f"`batch_tokens: {name}`, from the default's", result, base, base[2])
            for name, result in gains_by_tokens.items()
        ),
    ]
    exact = [
        *tokens("transformers", single, single_seconds),
        gain_row("`passes: naive`, from the default's", naive, base, base[2]),
        gain_row("`dtype: float32`, from the default's", wide, base, base[2]),
    ]
    return PAGE.format(
        machine=measure.machine(compute_dtype()),
        default=markdown_table(heads, default),
        exact=markdown_table(heads, exact),
    )


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("docs/results/determinism.md"), metavar="FILE")
    args = parser.parse_args()
    with storage.replacing(args.out) as path:
        path.write_text(run(args.results))


if __name__ == "__main__":
    main()
