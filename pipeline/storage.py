"""Checked, atomic, byte-reproducible parquet tables, and atomic writing of any file or folder."""

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError

VERSION = "1"
CORPUS = pa.schema([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` (file or folder); on success it takes `path`'s place.

    The temporary paths that killed processes left are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        number = leftover.suffixes[-2][1:]
        if number.isdecimal() and not is_running(int(number)):
            remove(leftover)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        take_place(temporary, path)
    finally:
        remove(temporary)


def is_running(process: int) -> bool:
    """Whether this machine has a process of this number."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def take_place(source: Path, path: Path) -> None:
    """Rename a finished file or folder to `path`; what was there before is removed."""
    if source.is_dir() and path.exists():
        shutil.rmtree(path)
    source.replace(path)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(value: Any, path: Path) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; UserError when it is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None


def footer(path: Path, name: str) -> str:
    """A value of the metadata in a table's footer; empty if it has none of that name."""
    metadata: dict[bytes, bytes] = pq.read_metadata(path).metadata or {}
    return metadata.get(name.encode(), b"").decode()


def write(
    rows: Sequence[Mapping[str, Any]],
    schema: pa.Schema,
    path: Path,
    key: Sequence[str],
    meta: Mapping[str, str] | None = None,
) -> None:
    """Write `rows` as parquet, sorted by the unique `key`, with `meta` and the schema version in the footer.

    Raises ValueError if a row lacks a column, has another one, or repeats a key.
    """
    names = set(schema.names)
    for row in rows:
        if set(row) != names:
            raise ValueError(f"{path}: columns {sorted(set(row) ^ names)} do not fit the schema")
    rows = sorted(rows, key=lambda row: tuple(row[name] for name in key))
    keys = {tuple(row[name] for name in key) for row in rows}
    if len(keys) != len(rows):
        raise ValueError(f"{path}: {len(rows) - len(keys)} repeated keys {tuple(key)}")
    table = pa.Table.from_pylist(rows, schema=schema)
    table = table.replace_schema_metadata({"version": VERSION, **(meta or {})})
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a parquet table and check its columns; further columns are kept.

    Raises UserError when the file is missing, not parquet, or a column is missing or of another type.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a readable parquet table: {error}") from None
    for field in schema:
        if field.name not in table.column_names:
            raise UserError(f"{path}: column {field.name!r} is missing; found {table.column_names}")
        kind = table.schema.field(field.name).type
        if kind != field.type:
            raise UserError(f"{path}: column {field.name!r} is {kind}, expected {field.type}")
    return table
