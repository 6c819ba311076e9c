"""A table in several jobs: each makes the rows of its shard, and `igpo join` puts them together."""

from argparse import ArgumentParser
from typing import Any

from pipeline import stage
from pipeline.errors import UserError


def argument(parser: ArgumentParser) -> None:
    """The option of a stage that can make one shard of its table."""
    parser.add_argument(
        "--shard", type=stage.positive(), metavar="N", help="1 to `shards` of the section; default: all rows"
    )


def bounds(number: int, shard: int | None, params: Any) -> tuple[int, int]:
    """First and last (excluded) of `number` items that a shard of `params.shards` gets; of all without one.

    Raises UserError if there is no such shard.
    """
    if shard is None:
        return 0, number
    if shard > params.shards:
        section = type(params).__name__.lower()
        raise UserError(f"--shard {shard}: expected 1 to {params.shards} ({section}.shards)")
    return number * (shard - 1) // params.shards, number * shard // params.shards
