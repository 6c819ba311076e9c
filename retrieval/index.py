"""corpus.parquet -> index folder (BM25, dense or rerank), self-contained and opened memory-mapped.

Files: `passages.arrow`, `order.npy` (passages.py), `lucene/` or `dense.faiss`, and last `manifest.json`. Its
`identity` is a hash over what decides the answers: corpus, kind, settings, encoder; not the machine.
The folder appears whole. A killed build leaves `.NAME.partial` beside it, where the same command goes on:
there `made` becomes the folder, and vectors stand beside it until it is in place.
"""

import fcntl
import hashlib
import json
import shutil
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from retrieval import passages, stage, tables
from retrieval.errors import UserError

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
    from retrieval.encoder_files import encoder_folder, fingerprint

    source = settings["encoder" if kind == "dense" else "reranker"]
    if source is None:
        raise UserError("index.kinds has rerank: give the cross-encoder's folder as index.reranker")
    return fingerprint(encoder_folder(source))


def place(out: Path, manifest: str, corpus: Path) -> Path:
    """Where `out` leads; UserError where what is there is no folder of ours (with `manifest`) to replace."""
    real = out.resolve()
    if corpus.resolve().is_relative_to(real):
        raise UserError(f"--out {out}: the corpus itself is in this folder; give another --out")
    if real.exists() and not real.is_dir():
        raise UserError(f"--out {out}: a file is there; give another --out")
    if real.is_dir() and any(real.iterdir()) and not (real / manifest).is_file():
        raise UserError(f"--out {out}: a folder with other files is there; give another --out")
    return real


@contextmanager
def workplace(out: Path, key: str) -> Iterator[Path]:
    """The folder of an unfinished build of `out`; emptied unless it was begun with the same `key`.

    Raises UserError where another process builds there.
    """
    work = out.parent / f".{out.name}.partial"
    work.mkdir(parents=True, exist_ok=True)
    with (work / "key").open("a+") as begun:
        try:
            fcntl.flock(begun, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{out}: another process is building it; wait for its end") from None
        begun.seek(0)
        if begun.read() != key:
            for name in ("made", "vectors"):
                shutil.rmtree(work / name, ignore_errors=True)
            begun.truncate(0)
            begun.write(key)
            begun.flush()
        yield work


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


def add_index(args: Namespace, settings: dict[str, Any], made: Path, hashes: tuple[str, str]) -> None:
    """Add the index to the passages in `made`; `hashes` are those of corpus and encoder."""
    stored = passages.Passages(made)
    if args.kind == "bm25":
        from retrieval import bm25

        bm25.build(stored, made)
    elif args.kind == "dense":
        from retrieval import dense, encode

        vectors = None
        if args.vectors:
            key = encode.vectors_key(hashes[0], settings, hashes[1])
            vectors = encode.read_shards(args.vectors, key, len(stored))
        dense.build(stored, made.parent, settings, vectors)
    else:
        from retrieval.rerank import Reranker

        Reranker(Path(settings["reranker"]), hashes[1])  # can it be used?


def run(args: Namespace, params: SimpleNamespace) -> str:
    """Build one index."""
    settings = chosen(args.kind, params)
    encoder = encoder_sha256(args.kind, settings)
    if not args.corpus.is_file():
        raise UserError(f"{args.corpus}: no such file")
    out, source = place(args.out, "manifest.json", args.corpus), tables.sha256(args.corpus)
    with workplace(out, digest([args.kind, settings, encoder, source])) as work:
        made = work / "made"
        shutil.rmtree(made, ignore_errors=True)  # of a killed build
        made.mkdir()
        try:
            corpus = passages.store(args.corpus, made)
            add_index(args, settings, made, (source, str(encoder)))
        except UserError:
            shutil.rmtree(work)  # going on would meet the same error
            raise
        tables.write_json(manifest(made, args.kind, settings, encoder, corpus), made / "manifest.json")
        finish(work, out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return f"{args.kind} index of {corpus[0]} passages, {size / 1e6:.0f} MB"


main = stage.command("index", arguments, run, __doc__)

if __name__ == "__main__":
    main()
