"""`manifest.json`: what an index was made from, and every file of its folder."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline import sections, storage
from pipeline.errors import UserError

KINDS = ("bm25", "dense", "rerank")


def chosen(kind: str, params: sections.Index) -> dict[str, Any]:
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
    from retrieval.encoder.folder import encoder_folder, fingerprint

    source = settings["encoder" if kind == "dense" else "reranker"]
    if source is None:
        raise UserError("index.kinds has rerank: give the cross-encoder's folder as index.reranker")
    return fingerprint(encoder_folder(source))


def manifest(
    folder: Path, kind: str, settings: dict[str, Any], encoder: str | None, corpus: tuple[int, str]
) -> dict:
    """Describe a finished index: what it was made of, and every file with its size in bytes."""
    files = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    decisive = {name: value for name, value in settings.items() if name not in ("encoder", "reranker")}
    return {
        "version": storage.VERSION,
        "kind": kind,
        "rows": corpus[0],
        "corpus_sha256": corpus[1],
        "order_sha256": storage.sha256(folder / "order.npy"),
        "encoder_sha256": encoder,
        "settings": settings,
        "files": {name: path.stat().st_size for name, path in files.items()},
        "identity": digest([storage.VERSION, kind, corpus[1], decisive, encoder]),
    }


MANIFEST_KEYS = {"kind", "rows", "corpus_sha256", "encoder_sha256", "settings", "files", "identity"}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an index folder; UserError when a file is missing or has another size than noted."""
    if not (folder / "manifest.json").is_file():
        raise UserError(f"{folder}: not an index folder: manifest.json is missing; run `retrieval index`")
    manifest = storage.read_json(folder / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("version") != storage.VERSION:
        raise UserError(f"{folder}: the index is of another version; build it again")
    if MANIFEST_KEYS - manifest.keys():
        raise UserError(f"{folder}: manifest.json is not whole; build the index again")
    for name, size in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{folder}: the index lacks {name}; build it again")
        if path.stat().st_size != size:
            raise UserError(
                f"{folder}: {name} has {path.stat().st_size} bytes, expected {size}; build it again"
            )
    return manifest
