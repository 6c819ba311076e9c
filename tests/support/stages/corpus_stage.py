"""The corpus stage over a small file."""

from small_index import call

from pipeline import storage
from retrieval import corpus

CONFIG = ("--config", '{"source": "vital"}')


def load(tmp_path, name: str, content: str | bytes) -> list[tuple[str, str, str]]:
    """Write a file, run the stage on it, return (id, title, text) rows."""
    source = tmp_path / name
    source.write_bytes(content.encode() if isinstance(content, str) else content)
    call(corpus.main, *CONFIG, "--source", source, "--out", tmp_path / "out.parquet")
    table = storage.read(tmp_path / "out.parquet", storage.CORPUS)
    return [tuple(row.values()) for row in table.to_pylist()]
