"""corpus.parquet -> index folder (BM25, dense or rerank), self-contained and opened memory-mapped.

Files: `passages.arrow`, `order.npy` (passages.py), `lucene/` or `dense.faiss`, and last `manifest.json`. Its
`identity` is a hash over what decides the answers: corpus, kind, settings, encoder; not the machine.
The folder appears whole. A killed build leaves `.NAME.partial` beside it, where the same command goes on:
there `made` becomes the folder, and vectors stand beside it until it is in place.
"""

import hashlib
import json
import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from retrieval import passages, stage, tables

KINDS = ("bm25", "dense", "rerank")


def chosen(kind: str, params: SimpleNamespace) -> dict[str, Any]:
    """The settings that a kind of index depends on."""
    dense = ("encoder", "query_prefix", "passage_prefix", "max_tokens", "batch", "faiss")
    names = {"bm25": ("k1", "b"), "dense": dense, "rerank": ("reranker",)}[kind]
    return {name: getattr(params, name) for name in names}


def digest(value: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def encoder_sha256(kind: str, settings: dict[str, Any]) -> str | None:
    """The hash of an encoder or cross-encoder; checks its folder before any work is done."""
    if kind == "bm25":
        return None
    from retrieval.encoder import encoder_folder, fingerprint

    source = settings["encoder" if kind == "dense" else "reranker"]
    if source is None:
        raise stage.UserError("index.kinds has rerank: give the cross-encoder's folder as index.reranker")
    return fingerprint(encoder_folder(source))


def workplace(out: Path, key: str) -> Path:
    """The folder of an unfinished build of `out`; emptied unless it was begun with the same `key`."""
    work = out.parent / f".{out.name}.partial"
    if not (work / "key").is_file() or (work / "key").read_text() != key:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        (work / "key").write_text(key)
    return work


def finish(work: Path, out: Path) -> None:
    """Let `work`/made take the place of `out`; what a killed build would go on from goes last."""
    tables.take_place(work / "made", out)
    shutil.rmtree(work)


def manifest(
    made: Path, kind: str, settings: dict[str, Any], encoder: str | None, corpus: tuple[int, str]
) -> dict:
    """Describe a finished index: what it was made of, and every file with its size in bytes."""
    files = {path.relative_to(made).as_posix(): path for path in sorted(made.rglob("*")) if path.is_file()}
    decisive = {name: value for name, value in settings.items() if name not in ("encoder", "reranker")}
    return {
        "version": tables.VERSION,
        "kind": kind,
        "rows": corpus[0],
        "corpus_sha256": corpus[1],
        "order_sha256": tables.sha256(made / "order.npy"),
        "encoder_sha256": encoder,
        "settings": settings,
        "files": {name: path.stat().st_size for name, path in files.items()},
        "identity": digest([tables.VERSION, kind, corpus[1], decisive, encoder]),
    }


def arguments(parser: ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--corpus", type=Path, required=True, metavar="FILE", help="corpus.parquet")
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument(
        "--vectors", type=Path, action="extend", nargs="+", metavar="DIR", help="of all shards"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the index folder")


def run(args: Namespace, params: SimpleNamespace) -> str:
    """Build one index."""
    settings = chosen(args.kind, params)
    encoder = encoder_sha256(args.kind, settings)
    if not args.corpus.is_file():
        raise stage.UserError(f"{args.corpus}: no such file")
    source = tables.sha256(args.corpus)
    work = workplace(args.out, digest([args.kind, settings, encoder, source]))
    made = work / "made"
    shutil.rmtree(made, ignore_errors=True)  # of a killed build
    made.mkdir()
    try:
        corpus = passages.store(args.corpus, made)
        if args.kind == "bm25":
            from retrieval import bm25

            bm25.build(passages.Passages(made), made)
        elif args.kind == "dense":
            from retrieval import dense, encode

            vectors = None
            if args.vectors:
                key = encode.vectors_key(source, settings, str(encoder))
                vectors = encode.read_shards(args.vectors, key, corpus[0])
            dense.build(passages.Passages(made), work, settings, vectors)
    except stage.UserError:
        shutil.rmtree(work)  # going on would meet the same error
        raise
    tables.write_json(manifest(made, args.kind, settings, encoder, corpus), made / "manifest.json")
    finish(work, args.out)
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    return f"{args.kind} index of {corpus[0]} passages, {size / 1e6:.0f} MB"


main = stage.command("index", arguments, run, __doc__)

if __name__ == "__main__":
    main()
