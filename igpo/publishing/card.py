"""A trained policy's README: `policy, its evaluation -> README.md`.

How it was trained, on what, its numbers with intervals, its licence, and how it is loaded.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from igpo.experiment import checks
from igpo.reporting.cells import percent
from igpo.reporting.text import markdown_table, write_text
from pipeline import stage, storage
from pipeline.settings import apply_arm

CARD = """\
---
library_name: transformers
license: {licence}
tags: [reinforcement-learning, search-agent, igpo]
---

# {name}

A search agent: it thinks, searches and reads over several turns, and then answers. {base} after a warm start
and {iteration} updates with `{method}`, on questions from {questions}.

{numbers}

Per cent, with 95 % bootstrap intervals over the questions. Decoding: {decoding}; corpus: {corpus};
retriever: {retriever}.
Other questions, corpora or retrievers give other numbers: these compare methods with each other.

## Load it

```python
{transformers}
```

```python
{vllm}
```

It reads and writes protocol `{protocol}`; `igpo rollout --policy FOLDER …` plays it with a local index.

## How it was trained

{settings}

Weights: `{weights}`. Made by `{source}`; the policy before it: `{parent}`.

Licence: {terms}.
"""
TRANSFORMERS = """\
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")"""
VLLM = """\
from vllm import LLM
llm = LLM(".")"""
SETTINGS = {
    "train": ("lr", "kl", "clip_low", "clip_high", "aggregation"),
    "rollout": ("questions", "samples", "temperature", "max_turns", "turn_tokens"),
    "score": ("step_reward", "format_penalty"),
    "advantage": ("method", "gamma", "normalisation"),
}


def number_cells(metrics: Mapping[str, Any]) -> list[list[str]]:
    """A line per benchmark: questions, F1 and exact match with intervals, answered, searches."""
    lines = []
    for name, values in metrics["benchmarks"].items():
        bounds = [
            f"{percent(values[key]['mean'])} [{percent(values[key]['low'])}, {percent(values[key]['high'])}]"
            for key in ("f1", "em")
        ]
        rest = [percent(values["answer_rate"]["mean"]), f"{values['searches']['mean']:.2f}"]
        lines.append([name, str(values["n"]), *bounds, *rest])
    return lines


def licence(source: str) -> tuple[str, str]:
    """(word for the card's head, in words) of weights that were trained from a model."""
    if source == "smollm2":
        return "apache-2.0", "Apache-2.0, as the base model's; the questions' text is CC BY-SA"
    return "other", f"that of the base model, {source}"


def card(params: Mapping[str, Any], arm: str, manifest: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The README of an arm's policy."""
    own, provenance = apply_arm(params, arm), metrics["provenance"]
    head, terms = licence(params["model"]["source"])
    settings = [
        [f"{section}.{key}", str(own[section][key])] for section, keys in SETTINGS.items() for key in keys
    ]
    heads = ["benchmark", "questions", "F1", "exact match", "answered", "searches"]
    base = params["model"]["source"]
    return CARD.format(
        name=f"{arm}, from {base}",
        licence=head,
        base="SmolLM2-135M-Instruct" if base == "smollm2" else base,
        iteration=manifest["iteration"],
        method=own["advantage"]["method"],
        questions=params["questions"]["source"],
        numbers=markdown_table(heads, number_cells(metrics)),
        corpus=params["corpus"]["source"],
        decoding=provenance.get("decoding") or "unknown",
        retriever=str(provenance.get("retriever", "none"))[:40],
        transformers=TRANSFORMERS,
        vllm=VLLM,
        protocol=own["rollout"]["protocol"],
        settings=markdown_table(["setting", "value"], settings),
        weights=manifest["weights_sha256"],
        source=manifest["source"],
        parent=", ".join(manifest["parents"]),
        terms=terms,
    )


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    checks.arguments(parser)
    parser.add_argument("--arm", required=True, metavar="NAME")
    parser.add_argument("--policy", type=Path, required=True, metavar="DIR")
    parser.add_argument("--metrics", type=Path, required=True, metavar="FILE", help="of its evaluation")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")


def run(args: argparse.Namespace) -> str:
    """Write the card."""
    manifest, metrics = storage.read_json(args.policy / "policy.json"), storage.read_json(args.metrics)
    write_text(card(checks.read(args), args.arm, manifest, metrics), args.out)
    return f"{args.arm} after {manifest['iteration']} updates"


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
