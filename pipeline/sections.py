"""The sections of params.yaml as the stages get them; `params.schema.yaml` has their ranges.

params.yaml says what each setting means.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Corpus:
    """Which passages."""

    source: str


@dataclass(frozen=True)
class Index:
    """How passages are indexed."""

    kinds: list[str]
    k1: float
    b: float
    encoder: str
    query_prefix: str | None
    passage_prefix: str | None
    max_tokens: int
    batch: int
    shards: int
    reranker: str | None
    faiss: str


@dataclass(frozen=True)
class Model:
    """Which model the warm start is trained from."""

    source: str


@dataclass(frozen=True)
class Questions:
    """Which questions, and how they are split."""

    source: str | list[str]
    seed: int
    dev_share: float
    test_share: float
    passage_chars: int
    headline_types: list[str]


@dataclass(frozen=True)
class Warmup:
    """The supervised warm start."""

    seed: int
    by_type: bool
    benchmarks: list[str]
    traces: int
    lr: float
    batch: int
    batch_tokens: int
    epochs: int
    k: int
    passage_chars: int | None


@dataclass(frozen=True)
class Rollout:
    """How a policy answers questions."""

    engine: str
    protocol: str
    instructions: str | None
    date: str
    tools: list[str]
    retriever: str
    noise: float
    benchmarks: list[str]
    questions: int | None
    by_type: bool
    samples: int
    at_once: int | None
    exact: bool
    shards: int
    tensor_parallel: int
    temperature: float
    max_turns: int
    turn_tokens: int
    max_tokens: int
    k: int
    passage_chars: int | None


@dataclass(frozen=True)
class Score:
    """What turns and answers are worth."""

    step_reward: str
    gold: str
    counterfactuals: int
    format_penalty: float
    dtype: str
    batch_tokens: int
    passes: str
    shards: int
    processes: int


@dataclass(frozen=True)
class Critic:
    """PPO's critic and its update."""

    lr: float
    weight_decay: float
    max_grad_norm: float
    batch_tokens: int
    checkpoint: bool
    processes: int


@dataclass(frozen=True)
class Advantage:
    """The method, and how rewards become advantages. A weight is a number when a method gets it."""

    method: str
    normalisation: str
    scope: str
    gamma: float
    std: str
    lam: float
    gain_weight: Any
    outcome_weight: Any
    omega: float
    alpha: float


@dataclass(frozen=True)
class Train:
    """The policy's update."""

    lr: float
    weight_decay: float
    ratio: str
    clip_low: float
    clip_high: float
    clip_scale: float
    dual_clip: float | None
    kl: float
    entropy: float
    aggregation: str
    norm_tokens: int
    drop_equal_groups: bool
    updates: int
    minibatches: int
    max_grad_norm: float
    batch_tokens: int
    checkpoint: bool
    lora: int | None
    processes: int
    nodes: int


@dataclass(frozen=True)
class Health:
    """When a run counts as gone wrong."""

    on_collapse: str
    searches: float
    well_formed: float
    updated_well_formed: float
    entropy: float


@dataclass(frozen=True)
class Evaluate:
    """How answers are evaluated; `rollout` is laid over section rollout."""

    bootstrap: int
    seed: int
    format_penalty: float
    rollout: dict[str, Any]


@dataclass(frozen=True)
class Judge:
    """The model that judges answers, if there is one."""

    model: str | None
    url: str | None
    engine: str
    tensor_parallel: int
    temperature: float
    tries: int
    workers: int
    remote: bool


@dataclass(frozen=True)
class Tables:
    """What tables compare; a comparison has a `baseline` and `rows`."""

    baseline: str
    metric: str
    bootstrap: int
    seed: int
    algorithms: dict[str, Any]
    ablation: dict[str, Any]
    basis: dict[str, Any]
    per_question: dict[str, Any]
    gamma: dict[str, Any]
    single_turn: dict[str, Any]
    collapse: list[str]
