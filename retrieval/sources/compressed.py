"""Files, plain or compressed (gzip, bzip2, xz, zstandard), of one stream or many.

Every byte counts: a damaged second stream, or bytes behind the last that are none, are an error. Python's own
readers of bzip2 and xz end there without a word.
"""

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
ZSTANDARD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")  # a frame, or one to skip (pzstd)
UNREADABLE = (EOFError, OSError, zlib.error, lzma.LZMAError)  # of a file that is truncated or damaged
CHUNK_BYTES = 1 << 16
Decompressor = bz2.BZ2Decompressor | lzma.LZMADecompressor


class Streams(io.RawIOBase):
    """What the streams of a file hold; one of `UNREADABLE` for anything but zeros behind a stream."""

    def __init__(self, path: Path, make: Callable[[], Decompressor]):
        self.file = path.open("rb")
        self.make = make
        self.decompressor = make()

    def readable(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Close the file too."""
        self.file.close()
        super().close()

    def following(self) -> bytes:
        """What begins behind a stream, without zeros; empty at the end of the file."""
        rest = self.decompressor.unused_data.lstrip(b"\0")
        while not rest and (chunk := self.file.read(CHUNK_BYTES)):
            rest = chunk.lstrip(b"\0")
        return rest

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer in part; 0 at the end."""
        data = b""
        while not data:
            chunk = b""
            if self.decompressor.eof:
                chunk = self.following()
                if not chunk:
                    return 0
                self.decompressor = self.make()
            elif self.decompressor.needs_input:
                chunk = self.file.read(CHUNK_BYTES)
                if not chunk:
                    raise EOFError("a compressed stream does not end")
            data = self.decompressor.decompress(chunk, len(buffer))
        buffer[: len(data)] = data
        return len(data)


def opened(path: Path) -> BinaryIO:
    """Open a file for reading, through the decompressor that its first bytes ask for."""
    with path.open("rb") as file:
        magic = file.read(6)
    if magic[:2] == b"\x1f\x8b":
        return cast(BinaryIO, gzip.open(path))
    if magic[:3] == b"BZh":
        return cast(BinaryIO, io.BufferedReader(Streams(path, bz2.BZ2Decompressor), CHUNK_BYTES))
    if magic == b"\xfd7zXZ\x00":
        return cast(BinaryIO, io.BufferedReader(Streams(path, lzma.LZMADecompressor), CHUNK_BYTES))
    if ZSTANDARD.match(magic):
        return cast(BinaryIO, io.BufferedReader(pa.input_stream(str(path), compression="zstd")))
    return path.open("rb")


def plain_path(path: Path) -> Path:
    """The path without the ending that says how the file is compressed."""
    return path.with_suffix("") if path.suffix in COMPRESSED else path
