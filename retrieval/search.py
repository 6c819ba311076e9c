"""Index folders + queries -> hits, printed; two indexes or more are fused."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pipeline import stage
from pipeline.errors import UserError
from retrieval.indexes.searcher import open_searcher


def arguments(parser: ArgumentParser) -> None:
    """Indexes and queries."""
    parser.add_argument(
        "--index", type=Path, action="append", required=True, metavar="DIR", help="repeatable"
    )
    parser.add_argument("-k", type=int, default=3, help="hits per query (default 3)")
    parser.add_argument("query", nargs="+")


def run(args: Namespace) -> str:
    """Print the hits of each query."""
    if args.k < 1:
        raise UserError(f"-k {args.k}: expected 1 or more")
    searcher = open_searcher(args.index)
    for query, hits in zip(args.query, searcher.search(args.query, args.k), strict=True):
        print(f"{query}")
        for rank, hit in enumerate(hits, 1):
            print(
                f"  {rank}. {hit.title or '(no title)'}  [{hit.id}]  {hit.score:.4f}\n     {hit.text[:200]}"
            )
        if not hits:
            print("  no hits")
    return f"{len(args.query)} queries over {len(searcher)} passages"


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
