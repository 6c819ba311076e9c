"""A batch of two questions and the update stage over it, with a tiny policy."""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from small_qwen import tokenizer
from tiny import tiny

from igpo import train
from igpo.experiment import schema
from pipeline import storage

PARAMS = SimpleNamespace(
    lr=1e-3,
    weight_decay=0.01,
    ratio="token",
    clip_low=0.2,
    clip_high=0.2,
    clip_scale=0.0,
    dual_clip=None,
    kl=0.1,
    entropy=0.0,
    aggregation="seq-mean-token-mean",
    norm_tokens=100,
    drop_equal_groups=False,
    max_grad_norm=1.0,
    batch_tokens=4096,
    checkpoint=False,
    processes=1,
    nodes=1,
    lora=None,
)


def changed(**values) -> SimpleNamespace:
    return SimpleNamespace(**vars(PARAMS) | values)


def batch(seed: int = 0):
    """Rollouts, scores and advantages of two questions with ragged trajectories."""
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> list[int]:
        return torch.randint(0, 320, (count,), generator=generator).tolist()

    def floats(count: int) -> list[float]:
        return (-3 * torch.rand(count, generator=generator)).tolist()

    rollouts, scores, credits = [], [], []
    for question, turns_of in (("q1", [2, 1, 3]), ("q2", [1, 2])):
        prompt = [7, 8, 9, *ids(6)]
        for sample, turns in enumerate(turns_of):
            for turn in range(turns + 1):
                key = {"question_id": question, "sample": sample, "turn": turn}
                policy = ids(4 + turn) if turn else []
                row = dict.fromkeys(schema.ROLLOUTS.names) | key | {"policy_ids": policy}
                row["observation_ids"] = ids(11) if 0 < turn < turns else []
                row["observation_ids"] = prompt if turn == 0 else row["observation_ids"]
                row["stop"] = "answered" if turn == turns else None
                rollouts.append(row)
                logprobs = {"old_logprobs": floats(len(policy)), "ref_logprobs": floats(len(policy))}
                scores.append(dict.fromkeys(schema.SCORES.names) | key | logprobs)
                if turn:
                    credits.append(key | {"reward": 0.0, "normalised": 0.0, "advantage": floats(1)[0] + 1.5})
    return rollouts, scores, credits


def scored():
    """Rollouts and scores of the batch whose gains are 0 and whose outcomes are 0, 1, 2 …"""
    rollouts, scores, _ = batch()
    outcomes = iter(range(10))
    for row, score in zip(rollouts, scores, strict=True):
        score["step_reward"] = 0.0
        score["outcome"] = float(next(outcomes)) if row["stop"] else None
    return rollouts, scores


def stage_words(folder: Path, tables=None) -> list[str]:
    """Command line of the stage, but for --out, over a tiny policy; of the batch without `tables`."""
    tiny("llama").bfloat16().save_pretrained(folder / "policy")
    tokenizer().save_pretrained(folder / "policy")
    schemas = (schema.ROLLOUTS, schema.SCORES, schema.ADVANTAGES)
    words = ["--policy", str(folder / "policy")]
    names = ("rollouts", "scores", "advantages")
    for name, rows, columns in zip(names, tables or batch(), schemas, strict=True):
        storage.write(rows, columns, folder / f"{name}.parquet", schema.TURN_KEY)
        words += [f"--{name}", str(folder / f"{name}.parquet")]
    section = vars(PARAMS) | {"aggregation": "token-mean", "updates": 2, "minibatches": 1}
    return [*words, "--config", json.dumps(section)]


def trained(words: list[str], out: Path, *settings: str) -> dict[str, float]:
    """Run the stage; returns the metrics that it wrote."""
    train.main([*words, *(word for item in settings for word in ("--set", item)), "--out", str(out)])
    return storage.read_json(out / "policy.json")["metrics"]
