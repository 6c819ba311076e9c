"""How much the benchmarks measure: as on the page, or just enough to see that they work."""

from dataclasses import dataclass

from benchmarks.method.workload import Shape


@dataclass(frozen=True)
class Size:
    """How much a run measures. `pair`: the trajectories of one pack, of which a group of 8 has four."""

    repeats: int
    pairs: int  # in a repeat: scoring without and with information gain, whose difference is small
    pair: Shape
    ragged: Shape
    small: Shape
    turns: tuple[int, ...]
    groups: tuple[int, ...]
    observations: tuple[int, ...]
    memory_groups: tuple[int, ...]
    samples: tuple[int, int]  # a question's trajectories in parts `rollouts` and `iteration`
    long_turns: int


SIZES = {
    "full": Size(
        repeats=3,
        pairs=3,
        pair=Shape((10, 10)),
        ragged=Shape((3, 8, 2, 5)),
        small=Shape((2, 3), 100),
        turns=(2, 4, 6, 8, 10),
        groups=(1, 2, 4, 8),
        observations=(100, 500, 1000, 1500),
        memory_groups=(2, 8),
        samples=(8, 8),
        long_turns=10,
    ),
    "small": Size(
        repeats=1,
        pairs=2,
        pair=Shape((2, 2), 40, 20, 30),
        ragged=Shape((1, 3, 2, 1), 40, 20, 30),
        small=Shape((1, 2), 40, 20, 30),
        turns=(1, 2),
        groups=(1, 2),
        observations=(20, 60),
        memory_groups=(1,),
        samples=(1, 2),
        long_turns=2,
    ),
}
