"""The corpus inside an index folder: passages by row or id, memory-mapped, nothing held in memory.

`passages.arrow` has the corpus rows in order; `order.npy` has the row numbers sorted by id.
"""

import bisect
import itertools
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import UserError
from retrieval.sources.ids import IdTable
from retrieval.sources.rows import Fingerprint, Passage, is_empty

BATCH_ROWS = 8192
KNOWN = 65_536  # ids whose row is remembered: 10 MB


def batches(corpus: Path) -> Iterator[pa.RecordBatch]:
    """Stream a corpus table; UserError when it is missing, unreadable or lacks a column."""
    try:
        with pq.ParquetFile(corpus, pre_buffer=False) as file:  # else it reads far ahead
            schema = file.schema_arrow
            for field in storage.CORPUS:
                if field.name not in schema.names or schema.field(field.name).type != field.type:
                    raise UserError(f"{corpus}: column {field.name!r} of type {field.type} is missing")
            yield from file.iter_batches(BATCH_ROWS, columns=storage.CORPUS.names)
    except FileNotFoundError:
        raise UserError(f"{corpus}: no such file") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{corpus}: not a readable parquet table: {error}") from None


def store(corpus: Path, folder: Path) -> tuple[int, str]:
    """Copy a corpus table into an index folder; returns its number of rows and its SHA-256.

    Raises UserError for an empty table or passage, and if an id is missing or repeated.
    """
    fingerprint, ids, count = Fingerprint(), IdTable(), 0
    with pa.ipc.new_file(folder / "passages.arrow", storage.CORPUS) as writer:
        for batch in batches(corpus):
            writer.write_batch(pa.record_batch(batch.columns, schema=storage.CORPUS))
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if None in row:
                    raise UserError(f"{corpus}: row {row[0]!r} has a null; make it with `retrieval corpus`")
                if is_empty(row[1], row[2]):
                    raise UserError(f"{corpus}: passage {row[0]!r} is empty; make it with `retrieval corpus`")
                if not ids.add(row[0], count):
                    raise UserError(f"{corpus}: id {row[0]!r} is repeated; make it with `retrieval corpus`")
                fingerprint.add(row)
                count += 1
    if not count:
        raise UserError(f"{corpus}: no passages in this table")
    with (folder / "order.npy").open("wb") as file:
        head = {"descr": "<i8", "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(file, head)
        rows = ids.rows()
        while part := list(itertools.islice(rows, BATCH_ROWS)):
            file.write(np.array(part, "<i8").tobytes())
    return count, fingerprint.hexdigest()


class Passages:
    """The passages of an index folder."""

    def __init__(self, folder: Path):
        self.path = folder / "passages.arrow"
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(self.path)))
            self.order = np.load(folder / "order.npy", mmap_mode="r")
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise UserError(f"{folder}: unreadable index: {error}; build it again") from None
        self.find = lru_cache(KNOWN)(self._find)  # a search in the sorted ids takes 60 µs, and hits repeat
        self.columns = [reader.get_batch(i).columns for i in range(reader.num_record_batches)]
        self.starts = [0]
        for ids, *_ in self.columns:
            self.starts.append(self.starts[-1] + len(ids))

    def __len__(self) -> int:
        return self.starts[-1]

    def row(self, number: int) -> Passage:
        """Id, title and text of a row."""
        columns, at = self._place(number)
        return columns[0][at].as_py(), columns[1][at].as_py(), columns[2][at].as_py()

    def id(self, number: int) -> str:
        """The id of a row."""
        columns, at = self._place(number)
        return columns[0][at].as_py()

    def _find(self, name: str) -> int | None:
        """The row of an id; None when there is no such passage."""
        at = bisect.bisect_left(self.order, name, key=lambda number: self.id(int(number)))
        if at == len(self.order) or self.id(int(self.order[at])) != name:
            return None
        return int(self.order[at])

    def __iter__(self) -> Iterator[Passage]:
        with pa.OSFile(str(self.path)) as source:  # pages of a memory map would stay
            reader = pa.ipc.open_file(source)
            for number in range(reader.num_record_batches):
                columns = reader.get_batch(number).columns
                yield from zip(*(column.to_pylist() for column in columns), strict=True)

    def _place(self, number: int) -> tuple[list[Any], int]:
        part = bisect.bisect_right(self.starts, number) - 1
        return self.columns[part], number - self.starts[part]
