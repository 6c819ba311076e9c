"""Indexes as they are built: a killed build, damaged or foreign files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_index import ROWS, SETTINGS, build, config, refusal, write_corpus

from pipeline import storage
from retrieval import index, search
from retrieval.indexes.manifest import read_manifest
from retrieval.indexes.searcher import open_searcher
from retrieval.indexes.workplace import workplace


def test_a_reranker_must_be_named(built, tmp_path, capsys):
    config = json.dumps(SETTINGS)
    files = ["--corpus", built[0], "--kind", "rerank", "--out", tmp_path / "rerank"]
    assert "give the cross-encoder's folder" in refusal(capsys, index.main, "--config", config, *files)


def bm25_words(corpus, out):
    return [*config(), "--corpus", corpus, "--kind", "bm25", "--out", out]


def test_no_folder_is_replaced_but_an_index(built, tmp_path, capsys):
    home, file = tmp_path / "home", tmp_path / "file"
    home.mkdir()
    shutil.copy(built[0], home / "corpus.parquet")
    file.write_text("precious")
    assert "the corpus itself is in this folder" in refusal(
        capsys, index.main, *bm25_words(home / "corpus.parquet", home)
    )
    assert "a folder with other files" in refusal(capsys, index.main, *bm25_words(built[0], home))
    assert "a file is there" in refusal(capsys, index.main, *bm25_words(built[0], file))
    assert [path.name for path in home.iterdir()] == ["corpus.parquet"]
    assert file.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "home"]


def test_an_index_without_its_manifest_is_made_again(built, tmp_path):
    """Snakemake removes the output that a rule names before it runs the rule again."""
    folder = tmp_path / "bm25"
    shutil.copytree(built[1], folder)
    (folder / "manifest.json").unlink()
    build(built[0], "bm25", folder)
    assert read_manifest(folder) == read_manifest(built[1])


def test_a_link_to_a_folder_is_followed(built, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "bm25").symlink_to(tmp_path / "disk")
    for _ in range(2):  # the second replaces an index
        index.main([str(word) for word in bm25_words(built[0], tmp_path / "bm25")])
    assert (tmp_path / "bm25").is_symlink()
    assert len(open_searcher([tmp_path / "bm25"])) == len(ROWS)


def test_two_processes_do_not_build_one_index(built, tmp_path, capsys):
    with workplace(tmp_path / "bm25", "another"):
        message = refusal(capsys, index.main, *bm25_words(built[0], tmp_path / "bm25"))
    assert "another process is building it" in message
    index.main([str(word) for word in bm25_words(built[0], tmp_path / "bm25")])


def test_a_passage_that_lucene_would_leave_out_is_refused(tmp_path, capsys):
    table = pa.Table.from_pylist(
        [dict(zip(storage.CORPUS.names, row, strict=True)) for row in (*ROWS, ("nothing", "", "\x01"))]
    )
    pq.write_table(table, tmp_path / "c.parquet")
    message = refusal(capsys, index.main, *bm25_words(tmp_path / "c.parquet", tmp_path / "bm25"))
    assert "passage 'nothing' is empty" in message


def test_what_killed_processes_left_goes(tmp_path):
    (tmp_path / ".a.json.99999999.tmp").write_text("half")
    storage.write_json({}, tmp_path / "a.json")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


STUCK_JAVA = """#!/bin/sh
for index; do :; done
mkdir -p "$index" && echo half > "$index/segments_1" && echo $$ > "$JAVA_HOME/pid.tmp"
mv "$JAVA_HOME/pid.tmp" "$JAVA_HOME/pid" && exec sleep 300
"""


def stuck_java(home: Path) -> Path:
    """A Java runtime that writes half an index, notes its process id as `home`/pid and goes on and on."""
    for name, content in (
        ("release", 'JAVA_VERSION="21.0"'),
        ("lib/server/libjvm.so", ""),
        ("bin/java", STUCK_JAVA),
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(content)
    (home / "bin/java").chmod(0o755)
    return home


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    command = Path(f"/proc/{pid}/cmdline")
    return command.exists() and command.read_bytes() != b""


def wait_for(happened) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_java_ends_with_a_killed_build_and_its_half_is_no_index(built, tmp_path):
    home, out = stuck_java(tmp_path / "java"), tmp_path / "bm25"
    command = [sys.executable, "-m", "retrieval.index", *config(), "--corpus", str(built[0])]
    command += ["--kind", "bm25", "--out", str(out)]
    with subprocess.Popen(command, env={**os.environ, "JAVA_HOME": str(home)}) as process:
        wait_for((home / "pid").exists)
        process.kill()
    pid = int((home / "pid").read_text())
    try:
        wait_for(lambda: not runs(pid))
    finally:
        if runs(pid):
            os.kill(pid, signal.SIGKILL)
    assert not out.exists()
    assert not (tmp_path / ".bm25.partial/made/lucene").exists()
    build(built[0], "bm25", out)
    files = read_manifest(out)["files"]
    assert sorted(files) == sorted(read_manifest(built[1])["files"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bm25", "java"]


@pytest.mark.parametrize("damage", ["manifest.json", "passages.arrow", "lucene/segments_1", "order.npy"])
def test_an_index_with_a_missing_file_is_refused(built, tmp_path, capsys, damage):
    folder = tmp_path / "bm25"
    shutil.copytree(built[1], folder)
    (folder / damage).unlink()
    assert damage in refusal(capsys, search.main, "--index", folder, "query")


def test_a_truncated_file_and_a_corpus_table_that_is_none_are_refused(built, tmp_path, capsys):
    folder = tmp_path / "bm25"
    shutil.copytree(built[1], folder)
    (folder / "passages.arrow").write_bytes((folder / "passages.arrow").read_bytes()[:-9])
    assert "passages.arrow" in refusal(capsys, search.main, "--index", folder, "query")
    for content in (b"", b"PAR1 no"):
        (tmp_path / "c.parquet").write_bytes(content)
        argv = (*config(), "--corpus", tmp_path / "c.parquet", "--kind", "bm25", "--out", tmp_path / "o")
        assert "c.parquet" in refusal(capsys, index.main, *argv)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bm25", "c.parquet"]


def test_indexes_of_different_corpora_are_refused(built, tmp_path, capsys):
    other = build(write_corpus(tmp_path, ROWS[:5]), "bm25", tmp_path / "other")
    message = refusal(capsys, search.main, "--index", built[1], "--index", other, "query")
    assert "different corpora" in message
