"""Compressed files of one stream or many: every byte is read, or an error."""

import bz2
import lzma

import pytest

from retrieval.sources.compressed import UNREADABLE, opened

MANY = b"".join(b'{"text": "%d"}\n' % number for number in range(50_000))


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress])
def test_streams_follow_each_other_and_zeros(tmp_path, compress):
    path = tmp_path / "file"
    path.write_bytes(compress(MANY) + bytes(200_000) + compress(b"") + compress(b"end") + bytes(8))
    with opened(path) as stream:
        assert stream.read() == MANY + b"end"


@pytest.mark.parametrize("compress", [bz2.compress, lzma.compress])
def test_a_damaged_second_stream_is_an_error(tmp_path, compress):
    """Python's readers take it for the end of the file."""
    path = tmp_path / "file"
    second = compress(MANY)
    for damaged in (b"x" + second[1:], second[:-1], second[:3], b"more text"):
        path.write_bytes(compress(MANY) + damaged)
        with opened(path) as stream, pytest.raises(UNREADABLE):
            stream.read()
