"""Passage ids, unique and in order, in a temporary database: memory does not grow with the corpus."""

import sqlite3
from collections.abc import Iterator

from pipeline.errors import UserError

# Nothing of it is ever read after a crash. 32 MB of it stay in memory.
SETUP = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -32768;
CREATE TABLE ids (id TEXT PRIMARY KEY, row INTEGER) WITHOUT ROWID;
BEGIN;
"""


class IdTable:
    """Ids and their rows."""

    def __init__(self) -> None:
        self.table = sqlite3.connect("", isolation_level=None)  # "": a file that goes with the connection
        self.table.executescript(SETUP)

    def add(self, name: str, row: int) -> bool:
        """Note an id; False if it is there already.

        Raises UnicodeEncodeError for half a surrogate pair, UserError for a full disk.
        """
        try:
            return self.table.execute("INSERT OR IGNORE INTO ids VALUES (?, ?)", (name, row)).rowcount == 1
        except sqlite3.OperationalError as error:
            raise UserError(f"ids: {error}: give a folder with room as TMPDIR") from None

    def rows(self) -> Iterator[int]:
        """The rows in the order of their ids' UTF-8 bytes, which is that of their characters."""
        return (row for (row,) in self.table.execute("SELECT row FROM ids ORDER BY id"))
