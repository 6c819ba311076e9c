"""Supporting passages of published questions get the ids of the corpus."""

import json

import pyarrow.parquet as pq
import pytest
from question_rows import (
    HOTPOT,
    HUB,
    MUSIQUE,
    NQ_OPEN,
    POPQA,
    REVIEW,
    TWO_WIKI,
)
from question_stage import run, stage_corpus

from igpo.data import supporting
from igpo.experiment.schema import QUESTIONS
from pipeline import storage

GOLD_CORPUS = [
    ("p0", "Hamlet", "A  play."),
    ("p1", "Bard", "A poet."),
    ("p2", "Hamlet", "A village."),
    ("p3", "Play", "A work."),
    ("p4", "Bard", "A poet."),
    ("p5", "", "A play."),
]


@pytest.mark.parametrize(
    ("form", "named", "expected"),
    [
        (HOTPOT, [["Play", 0], ["Play", 1], ["Bard", 0]], ["p3", "p1"]),  # two passages, but the same text
        (HUB, {"title": ["Bard", "Play"], "sent_id": [0, 1]}, ["p1", "p3"]),
        (TWO_WIKI, [["Play", 0], ["Hamlet", 0]], []),  # two passages of different text
        (TWO_WIKI, [["Play", 0], ["play", 0]], []),
        (MUSIQUE, [("Hamlet", "A village.", True), ("Play", "no", False)], ["p2"]),
        (MUSIQUE, [("Hamlet", "A\nplay. ", True), ("Play", "A work.", True)], ["p0", "p3"]),
        (MUSIQUE, [("Hamlet", "A play.", True), ("Play", "Another text.", True)], []),
        (MUSIQUE, [("", "A play.", True)], []),
        (POPQA, [("Hamlet", "A village.", True), ("Bard", "A poet.", True)], ["p2", "p1"]),
        (POPQA, [("Play", None, True)], ["p3"]),
        (REVIEW, [("Play", "A work.", True)], ["12", "d3"]),  # ids that a file gives stay
        (NQ_OPEN, [], []),
    ],
)
def test_supporting_passages_get_the_ids_of_the_corpus(tmp_path, capsys, form, named, expected):
    corpus = [dict(zip(("id", "title", "text"), passage, strict=True)) for passage in GOLD_CORPUS]
    storage.write(corpus, storage.CORPUS, tmp_path / "corpus.parquet", ("id",))
    key = "text" if form is POPQA else "paragraph_text"
    paragraphs = [
        {"title": title, key: text, "is_supporting": is_supporting}
        for title, text, is_supporting in (named if "supporting_facts" not in form else [])
    ]
    row = form | ({"supporting_facts": named} if "supporting_facts" in form else {"paragraphs": paragraphs})
    (tmp_path / "file.jsonl").write_text(json.dumps(row))
    run("--source", tmp_path / "file.jsonl", "--corpus", tmp_path / "corpus.parquet", "--out", tmp_path)
    (question,) = storage.read(tmp_path / "test.parquet", QUESTIONS).to_pylist()
    assert question["supporting_ids"] == expected
    assert f"{int(bool(expected))} of 1 with their supporting passages" in capsys.readouterr().out


def test_musiques_passages_stand_in_the_order_of_its_hops():
    items = [(i, f"t{i}", i > 0) for i in range(4)]
    paragraphs = [{"idx": i, "title": t, "text": "x", "is_supporting": gold} for i, t, gold in items]
    steps = [{"question": "?", "paragraph_support_idx": i} for i in (3, 1, 2)]
    row = MUSIQUE | {"paragraphs": paragraphs, "question_decomposition": steps}
    assert supporting.find_supports(row) == [("t3", "x"), ("t1", "x"), ("t2", "x")]


def test_the_corpus_is_an_input_where_passages_are_looked_up_in_it(tmp_path):
    corpus = stage_corpus(tmp_path)
    hashes = []
    for name, row in (("by_id", REVIEW), ("by_title", HOTPOT)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
        run("--source", tmp_path / f"{name}.jsonl", "--corpus", corpus, "--out", tmp_path / name)
        meta = pq.read_schema(tmp_path / name / "test.parquet").metadata
        hashes.append(meta[b"source_sha256"].decode().split())
    assert [len(files) for files in hashes] == [1, 2]
    assert hashes[1][1] == storage.sha256(corpus)
