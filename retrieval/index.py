"""corpus.parquet -> index folder (BM25, dense or rerank), self-contained and opened memory-mapped.

Files: `passages.arrow`, `order.npy` (passages.py), `lucene/` or `dense.faiss`, and last `manifest.json`. Its
`identity` is a hash over what decides the answers: corpus, kind, settings, encoder; not the machine.
The folder appears whole. A killed build leaves `.NAME.partial` beside it, if the same command goes on:
there `made` becomes the folder, and vectors stand beside it until it is in place.
"""

import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from pipeline import sections, stage, storage
from pipeline.errors import UserError
from retrieval.indexes import passages
from retrieval.indexes.manifest import KINDS, chosen, digest, encoder_sha256, manifest
from retrieval.indexes.workplace import finish, place, workplace


def arguments(parser: ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--corpus", type=Path, required=True, metavar="FILE", help="corpus.parquet")
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument(
        "--vectors", type=Path, action="extend", nargs="+", metavar="DIR", help="of all shards"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the index folder")


def add_index(args: Namespace, settings: dict[str, Any], folder: Path, hashes: tuple[str, str]) -> None:
    """Add the index to the passages in `folder`; `hashes` are those of corpus and encoder."""
    all_passages = passages.Passages(folder)
    if args.kind == "bm25":
        from retrieval.indexes import bm25

        bm25.build(all_passages, folder)
    elif args.kind == "dense":
        from retrieval.indexes import dense
        from retrieval.indexes.vectors import read_shards, vectors_key

        vectors = None
        if args.vectors:
            key = vectors_key(hashes[0], settings, hashes[1])
            vectors = read_shards(args.vectors, key, len(all_passages))
        dense.build(all_passages, folder.parent, settings, vectors)
    else:
        from retrieval.indexes.rerank import Reranker

        Reranker(Path(settings["reranker"]), hashes[1])  # can it be used?


def run(args: Namespace, params: sections.Index) -> str:
    """Build one index."""
    settings = chosen(args.kind, params)
    encoder = encoder_sha256(args.kind, settings)
    if not args.corpus.is_file():
        raise UserError(f"{args.corpus}: no such file")
    out, source = place(args.out, "manifest.json", args.corpus), storage.sha256(args.corpus)
    with workplace(out, digest([args.kind, settings, encoder, source])) as work:
        folder = work / "made"
        shutil.rmtree(folder, ignore_errors=True)  # of a killed build
        folder.mkdir()
        try:
            corpus = passages.store(args.corpus, folder)
            add_index(args, settings, folder, (source, str(encoder)))
        except UserError:
            shutil.rmtree(work)  # going on would meet the same error
            raise
        storage.write_json(manifest(folder, args.kind, settings, encoder, corpus), folder / "manifest.json")
        finish(work, out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return f"{args.kind} index of {corpus[0]} passages, {size / 1e6:.0f} MB"


main = stage.command(sections.Index, arguments, run, __doc__)

if __name__ == "__main__":
    main()
