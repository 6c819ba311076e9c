"""Iterations of finished runs as batches that any method can be asked about again, without a model."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from igpo.credit.methods import METHODS, Rewards, Values
from igpo.credit.rewards import at_progress, trajectory
from igpo.experiment import schema
from igpo.reporting.cells import hashes
from igpo.reporting.validation import run_of
from pipeline import sections, storage

PROVENANCE = ("seed_names", "policy_sha256", "rollouts_sha256", "scores_sha256")
FILES = "Policies and files by the beginning of their SHA-256; the CSV file has the whole of it."


class Batch(NamedTuple):
    """The trajectories of one iteration, by question and sample; its arm, seed and number; its files."""

    arm: str
    seed: int
    k: int
    trajectories: list[Rewards]
    sha256: dict[str, str]  # rollouts, scores, and the policy that acted

    @property
    def policy(self) -> str:
        """Who acted: the warm start, or the arm's policy after so many updates."""
        return "warm start" if self.k == 1 else f"{self.arm} after {self.k - 1}"

    def groups(self) -> dict[str, list[int]]:
        """The places of every question's trajectories."""
        places = range(len(self.trajectories))
        groups = itertools.groupby(places, key=lambda place: self.trajectories[place].group)
        return {question: list(group) for question, group in groups}

    def first(self, size: int) -> list[Rewards]:
        """The first `size` trajectories of every group."""
        places = itertools.chain.from_iterable(group[:size] for group in self.groups().values())
        return [self.trajectories[place] for place in places]


def read_batch(folder: Path) -> Batch:
    """The batch of `runs/<arm>/s<seed>/<kkk>`. Raises UserError if its two tables don't fit."""
    arm, seed, k = run_of(folder)
    rollouts = storage.read(folder / "rollouts.parquet", schema.ROLLOUTS).to_pylist()
    scores = storage.read(folder / "scores.parquet", schema.SCORES).to_pylist()
    trajectories = list(map(trajectory, schema.joined(rollouts, scores=scores)))
    sha256 = {name: storage.sha256(folder / f"{name}.parquet") for name in ("rollouts", "scores")}
    sha256["policy"] = storage.footer(folder / "scores.parquet", "policy")
    return Batch(arm, int(seed), int(k), trajectories, sha256)


def read_batches(folders: Sequence[Path]) -> list[Batch]:
    """The batches in the order given; arms that share a first iteration's files have it once."""
    batches: dict[tuple[str, str], Batch] = {}
    for batch in map(read_batch, folders):
        batches.setdefault((batch.sha256["rollouts"], batch.sha256["scores"]), batch)
    return list(batches.values())


def settings(params: Mapping[str, Any], batch: Batch) -> sections.Advantage:
    """An arm's section `advantage` as it holds in a batch's iteration: weights may change over a run."""
    return at_progress(sections.Advantage(**params["advantage"]), batch.k / params["run"]["iterations"])


def advantages(batch: Sequence[Rewards], params: sections.Advantage) -> Values:
    """The advantages that a method without a critic gives, by trajectory and turn."""
    return METHODS[params.method](batch, params)[1]


def by_policy(batches: Sequence[Batch]) -> dict[str, list[Batch]]:
    """The batches of all seeds by who acted, the warm start first."""
    names = dict.fromkeys(batch.policy for batch in batches)
    return {name: [batch for batch in batches if batch.policy == name] for name in names}


def provenance(batches: Sequence[Batch]) -> dict[str, str]:
    """Seeds and files of some batches, as values of `PROVENANCE`."""
    files = {
        f"{name}_sha256": " ".join(batch.sha256[name] for batch in batches)
        for name in ("policy", "rollouts", "scores")
    }
    return {"seed_names": " ".join(str(batch.seed) for batch in batches), **files}


def provenance_cells(batches: Sequence[Batch]) -> tuple[list[str], list[list[str]]]:
    """(heads, cells) for a reader: what every acting policy's row was made from; hashes are shortened."""
    cells = []
    for name, own in by_policy(batches).items():
        seeds, *files = provenance(own).values()
        cells.append([name, seeds, *map(hashes, files)])
    return ["acting policy", "seeds", "policies", "rollouts", "scores"], cells
