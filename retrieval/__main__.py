"""`retrieval STAGE …`: one subcommand per module."""

import sys

from pipeline.dispatch import dispatch

STAGES = {
    "corpus": "any corpus file to corpus.parquet",
    "index": "BM25 or dense index over a corpus",
    "encode": "vectors of one shard of a corpus, for a dense index made on several machines",
    "search": "print the hits of a query; two indexes are fused",
    "serve": "serve indexes over HTTP with Search-R1's protocol",
    "coverage": "what the indexes can and cannot answer",
}


def main() -> None:
    """Run the stage named on the command line."""
    dispatch("retrieval", STAGES, sys.argv[1:], {})


if __name__ == "__main__":
    main()
