"""The coverage audit on a corpus and questions small enough to count by hand."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_index import call, refusal

from pipeline import storage
from retrieval import coverage

QUESTIONS = [
    ("q1", "one", "In which years did Herman Melville live?", ["1819-1891", "never"], ["melville"]),
    ("q2", "one", "capital of Burkina Faso", ["OUAGADOUGOU!"], ["ouaga", "bamako"]),
    ("q3", "one", "noble gas with atomic number 18", ["Helium"], ["argon"]),
    ("q4", "one", "the same mountain in an atlas", ["twin"], ["twin-c", "elsewhere"]),
    ("q5", "two", "Blue Danube composer", ["Johann Strauß"], []),
]


def write_questions(path, rows=QUESTIONS):
    columns = [list(column) for column in zip(*rows, strict=True)]
    pq.write_table(pa.table(columns, schema=coverage.QUESTIONS), path)
    return path


def test_shares_by_hand(built, tmp_path):
    questions = write_questions(tmp_path / "q.parquet", QUESTIONS[::-1])
    call(coverage.main, "--index", built[1], "--questions", questions, "--out", tmp_path / "c.json")
    report = json.loads((tmp_path / "c.json").read_text())
    one, two = report["benchmarks"]["one"], report["benchmarks"]["two"]
    assert report["uncovered"] == ["q3", "q4"]
    assert (one["n"], one["answer_in_corpus"], one["gold_in_index"]) == (4, 0.75, 0.75)
    assert one["answer_at"] == {"1": 0.75, "3": 0.75, "10": 0.75, "100": 0.75}
    # q1 1 of 1; q2 1 of 2, then both (Bamako is a capital too); q3 1 of 1; q4 0, then 1 of 2
    assert one["gold_at"] == {"1": 0.625, "3": 0.875, "10": 0.875, "100": 0.875}
    assert one["all_gold_at"] == {"1": 0.5, "3": 0.75, "10": 0.75, "100": 0.75}
    # each question with the answer of the one two further on: none is in the other's hits
    assert one["chance_answer_at"] == {"1": 0.0, "3": 0.0, "10": 0.0, "100": 0.0}
    assert (two["n"], two["answer_at"]["1"], two["gold_at"]["10"]) == (1, 1.0, None)


def test_questions_of_another_corpus_are_refused(built, tmp_path, capsys):
    options = ["--index", built[1], "--questions", tmp_path / "q.parquet", "--out", tmp_path / "c.json"]
    table = pq.read_table(write_questions(tmp_path / "q.parquet"))
    for sha256, refused in (("0" * 64, True), (storage.footer(built[0], "corpus_sha256"), False)):
        pq.write_table(table.replace_schema_metadata({"corpus_sha256": sha256}), tmp_path / "q.parquet")
        if refused:
            assert "made from corpus 000000000000…" in refusal(capsys, coverage.main, *options)
        else:
            call(coverage.main, *options)


def test_answers_are_matched_as_whole_words():
    corpus = [("1", "Paris", "The café-bar of 1900."), ("2", "", "New York City")]
    answers = [
        coverage.words(answer) for answer in ("Café bar", "190", "new york", "york new", "of 1900 paris")
    ]
    assert coverage.present(answers, corpus) == {("café", "bar"), ("new", "york")}
    assert coverage.rank_of([("new", "york")], [" newyork ", " in new york city "]) == 2
    assert coverage.rank_of([], [" a "]) == float("inf")
    assert coverage.words("Jose\u0301 SARAMAGO") == coverage.words("José Saramago")


@pytest.mark.parametrize(
    ("answer", "text", "there"),
    [
        ("กรุงเทพ", "ผมอยู่กรุงเทพมหานคร", True),
        ("東京", "私は東京都に", True),
        ("किल", "कुल", False),  # one consonant, two vowels
        ("हिन्दी", "वह हिन्दी है", True),
        ("2024", "in ２０２４", True),
        ("Wikipedia", "the Wiki\xadpe\u200bdia", True),
    ],
)
def test_answers_in_other_scripts_are_matched_as_they_are_seen(answer, text, there):
    answers = {coverage.words(answer)}
    assert coverage.present(answers, [("1", "", text)]) == (answers if there else set())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("q1", "one", "x?", [], [])], "'q1' has no answers"),
        ([], "no questions"),
        ([("q1", "one", "x?", ["a"], [])] * 2, "'q1' comes again in row 2"),
        ([(None, "one", "x?", ["a"], [])], "row 1, question None, has a null"),
        ([("q1", None, "x?", ["a"], [])], "row 1, question 'q1', has a null"),
        ([("q1", "one", None, ["a"], [])], "has a null"),
        ([("q1", "one", "x?", ["a", None], [])], "has a null"),
        ([("q1", "one", "x?", ["a"], [None])], "has a null"),
    ],
)
def test_bad_questions_are_refused(built, tmp_path, capsys, rows, message):
    path = tmp_path / "q.parquet"
    pq.write_table(
        pa.Table.from_pylist(
            [dict(zip(coverage.QUESTIONS.names, row, strict=True)) for row in rows], coverage.QUESTIONS
        ),
        path,
    )
    assert message in refusal(
        capsys, coverage.main, "--index", built[1], "--questions", path, "--out", tmp_path / "c.json"
    )
    assert not (tmp_path / "c.json").exists()
    lacking = pq.read_table(path).drop_columns(["answers"])
    pq.write_table(lacking, path)
    assert "'answers' is missing" in refusal(
        capsys, coverage.main, "--index", built[1], "--questions", path, "--out", tmp_path / "c.json"
    )
