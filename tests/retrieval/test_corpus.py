"""Corpus files: every published form, ids, errors with line numbers."""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_stage import CONFIG, load
from hypothesis import given
from hypothesis import strategies as st
from small_index import ROWS, call, refusal, write_corpus

from pipeline import storage
from retrieval import corpus
from retrieval.sources import forms


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


PASSAGE = {"id": "a", "title": "T", "text": "x y"}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("wiki18.jsonl", jsonl({"id": "0", "contents": '"Evan Morris"\nEvan Morris was\nborn'}),
         [("0", "Evan Morris", "Evan Morris was\nborn")]),
        ("flashrag.jsonl", jsonl({"id": 7, "contents": "Plain\ntext", "x": 1}, {"id": "8", "text": "only"}),
         [("7", "Plain", "text"), ("8", "", "only")]),
        ("one_line.jsonl", jsonl({"id": "x", "contents": "no title here"}), [("x", "", "no title here")]),
        ("beir.jsonl", jsonl({"_id": "d1", "title": "T", "text": "x", "metadata": {}}), [("d1", "T", "x")]),
        ("flashrag.json", jsonl(PASSAGE, {**PASSAGE, "id": "b"}), [("a", "T", "x y"), ("b", "T", "x y")]),
        ("hippo.json", json.dumps([{"title": "A", "text": "one"}, {"title": "B", "text": "two"}], indent=1),
         [("0", "A", "one"), ("1", "B", "two")]),
        ("hotpot.json", json.dumps({"A": ["One.", " Two."], "B": ["One.", "Two."]}),
         [("0", "A", "One. Two."), ("1", "B", "One. Two.")]),
        ("vital.json",
         json.dumps({"A": {"title": "A", "extract": "It\xa0is\n a.", "description": "Letter (1–2)"},
                     "B": {"title": "B", "extract": "It is b.", "description": ""}}, indent=2),
         [("0", "A", "Letter (1–2). It is a."), ("1", "B", "It is b.")]),
        ("odd.json", json.dumps([{"title": "A", "extract": "x", "description": 5}]), [("0", "A", "x")]),
        ("psgs.tsv", 'id\ttext\ttitle\n1\t"He said ""yes""\nand left"\tTitle one\n2\tplain\tTitle two\n',
         [("1", "Title one", 'He said "yes"\nand left'), ("2", "Title two", "plain")]),
        ("quotes.tsv", 'id\ttext\ttitle\n1\t"Open, said she\tA\n2\t"x" and "y"\tB\n3\tends with quote"\tC\n'
         '4\t"a\tb"\tD\n5\t""\tE\r\n',
         [("1", "A", '"Open, said she'), ("2", "B", '"x" and "y"'), ("3", "C", 'ends with quote"'),
          ("4", "D", "a\tb"), ("5", "E", "")]),
        ("titled.jsonl",
         jsonl({"title": "T", "contents": "one\ntwo"}, {"title": "T", "contents": '"T"\ntwo'}),
         [("0", "T", "one\ntwo"), ("1", "T", "two")]),
        ("marks.jsonl", '{"id": "a", "text": "x\u2028y"}\n{"id": "b", "text": "x\x85y"}\n\n \n',
         [("a", "", "x\u2028y"), ("b", "", "x\x85y")]),
        ("pretty.json", json.dumps({"id": "a", "contents": "T\nx"}, indent=2) * 2,
         [("a", "T", "x"), ("1", "T", "x")]),
        ("late.json", json.dumps({"url": "u", "title": "T", "text": "x"}, indent=2) * 2,
         [("0", "T", "x"), ("1", "T", "x")]),
        ("late_text.json", json.dumps({"url": "u", "meta": {"a": [1]}, "contents": "T\nx"}, indent=2),
         [("0", "T", "x")]),
        ("titles.json", json.dumps({**dict.fromkeys(map(str, range(64)), "x"), "id": "y"}, indent=1),
         [(str(number), str(number), "x") for number in range(64)] + [("64", "id", "y")]),
        ("musique.jsonl", jsonl({"idx": 0, "title": "T", "paragraph_text": "p"}), [("0", "T", "p")]),
        ("quoted.jsonl", jsonl({"contents": '"Weird Al" Yankovic\nt'}), [("0", '"Weird Al" Yankovic', "t")]),
    ],
)  # fmt: skip
def test_every_published_form_is_read(tmp_path, name, content, expected):
    assert load(tmp_path, name, content) == expected


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, bz2.compress, lzma.compress, lambda data: pa.compress(data, "zstd", asbytes=True)],
)
def test_compressed_files_give_the_same_corpus(tmp_path, compress):
    content = jsonl(*({"id": str(n), "title": f"t{n}", "text": "word " * n} for n in range(1, 50)))
    plain = load(tmp_path, "c.jsonl", content)
    bytes_before = (tmp_path / "out.parquet").read_bytes()
    assert load(tmp_path, "c.packed", compress(content.encode())) == plain
    assert (tmp_path / "out.parquet").read_bytes() == bytes_before


def test_parquet_with_contents_is_read(tmp_path):
    table = pa.table({"id": [3, 4], "contents": ["A\none", "B\ntwo"]})
    pq.write_table(table, tmp_path / "in.parquet")
    assert load(tmp_path, "in2", (tmp_path / "in.parquet").read_bytes()) == [
        ("3", "A", "one"),
        ("4", "B", "two"),
    ]


def test_a_json_value_may_cross_read_buffers(tmp_path, monkeypatch):
    rows = [{"title": f"Title {n}", "text": 'A "text" with ] and } and \\n' * n} for n in range(1, 20)]
    whole = load(tmp_path, "a.json", json.dumps(rows))
    monkeypatch.setattr(forms, "CHUNK_CHARS", 7)
    assert load(tmp_path, "b.json", json.dumps(rows, indent=2)) == whole
    assert len(whole) == 19


def test_a_byte_order_mark_and_blank_lines_ahead_change_no_form(tmp_path):
    rows = [PASSAGE, PASSAGE | {"id": "b"}]
    whole = load(tmp_path, "plain.json", json.dumps(rows))
    assert load(tmp_path, "mark.json", codecs.BOM_UTF8 + json.dumps(rows).encode()) == whole
    assert load(tmp_path, "blank.json", "\n \n" + json.dumps(rows)) == whole
    assert load(tmp_path, "quoted.tsv", '"id"\t"text"\t"title"\na\tx y\tT\nb\tx y\tT\n') == whole
    windows = [{"id": name, "contents": '"T"\r\nx y'} for name in "ab"]
    assert load(tmp_path, "windows.jsonl", jsonl(*windows)) == whole


def test_a_first_line_of_any_length_is_a_passage(tmp_path, monkeypatch):
    monkeypatch.setattr(forms, "FIRST_LINE_BYTES", 64)
    rows = [{"id": "a", "contents": "T\n" + "x" * 100}, {"id": "b", "contents": "U\ny"}]
    assert load(tmp_path, "c.json", jsonl(*rows)) == [("a", "T", "x" * 100), ("b", "U", "y")]


def zstandard(tmp_path, text: str) -> bytes:
    """A frame of its own."""
    with pa.output_stream(str(tmp_path / "frame"), compression="zstd") as stream:
        stream.write(text.encode())
    return (tmp_path / "frame").read_bytes()


def test_what_parallel_compressors_write_is_read_whole(tmp_path, capsys):
    """pzstd puts a frame to be skipped, with the size of the next one, before every frame."""
    skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00\x2a\x00\x00\x00"
    rows = [jsonl({"id": str(number), "text": "x"}) for number in range(3)]
    parts = [skipped + zstandard(tmp_path, row) for row in rows]
    assert [row[0] for row in load(tmp_path, "c.jsonl.zst", b"".join(parts))] == ["0", "1", "2"]
    gzipped = b"".join(gzip.compress(row.encode()) for row in rows)
    assert [row[0] for row in load(tmp_path, "c.jsonl.gz", gzipped)] == ["0", "1", "2"]
    (tmp_path / "cut.zst").write_bytes(b"".join(parts)[:-5])
    argv = (*CONFIG, "--source", tmp_path / "cut.zst", "--out", tmp_path / "o.parquet")
    assert "truncated" in refusal(capsys, corpus.main, *argv)


@given(
    st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Zs"]))] * 2),
        min_size=1,
    )
)
def test_a_table_has_as_many_rows_as_lines(rows):
    """Whatever quotes stand in texts: those that are written plainly, and those that csv quotes."""
    plain = "id\ttext\ttitle\n" + "".join(f"1\t{text}\t{title}\n" for text, title in rows)
    assert len(list(forms.separated(io.BytesIO(plain.encode())))) == len(rows)
    quoted = io.StringIO()
    csv.writer(quoted, delimiter="\t").writerows([("id", "text", "title"), *(("1", *row) for row in rows)])
    pairs = [
        (row["text"], row["title"]) for _, row in forms.separated(io.BytesIO(quoted.getvalue().encode()))
    ]
    assert pairs == rows


def test_missing_and_repeated_ids_become_row_numbers(tmp_path, caplog):
    rows = [{"id": name, "text": "x"} for name in ("a", None, "a", "", "4", "3", "6", "7", 7)]
    ids = [row[0] for row in load(tmp_path, "c.jsonl", jsonl(*rows))]
    assert ids == ["a", "1", "2", "3", "4", "5", "6", "7", "8"]
    assert "3 repeated ids" in caplog.text


def test_an_id_that_is_a_later_rows_number_stays_unique(tmp_path):
    ids = [row[0] for row in load(tmp_path, "c.jsonl", jsonl({"id": "1", "text": "x"}, {"text": "y"}))]
    assert ids == ["1", "row-1"]


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("c.jsonl", "", "line 1: the file is empty"),
        ("c.jsonl", jsonl(PASSAGE) + "\n" + jsonl(PASSAGE), "line 2: empty line"),
        ("c.jsonl", jsonl(PASSAGE) + '{"id": 1, "text": \n', "line 2: not JSON"),
        ("c.jsonl", '{"id": \n', "line 1: not JSON"),
        ("c.jsonl", jsonl(PASSAGE, {"id": "b", "title": "T"}), "line 2: no text"),
        ("c.jsonl", jsonl(PASSAGE, ["x"]), "line 2: not an object"),
        ("c.jsonl", jsonl(PASSAGE, {"id": "b", "text": " "}), "line 2: empty passage"),
        ("c.jsonl", jsonl(PASSAGE, {"id": "b", "title": "\x02", "text": "\x01 "}), "line 2: empty passage"),
        ("c.jsonl", jsonl(PASSAGE, {"id": [1], "text": "x"}), "line 2: id is list"),
        ("c.jsonl", jsonl(PASSAGE, {"id": True, "text": "x"}), "line 2: id is bool"),
        ("c.jsonl", jsonl(PASSAGE, {"id": "b", "text": "\ud800"}), "line 2: "),
        ("c.jsonl", jsonl(PASSAGE).encode() + b'{"text": "\xff"}\n', "line 2: "),
        ("c.txt", "just words\n", "line 1: not JSON"),
        ("c.json", '[\n{"text": "x"},\n{"text": }\n]', "line 3: not JSON"),
        ("c.json", '[{"text": "x"}\n{"text": "y"}]', "line 2: not JSON"),
        ("c.json", '[{"text": "x"}', "line 1: not JSON"),
        ("c.json", "[]", "no passages"),
        ("c.tsv", "id\ttext\ttitle\n1\tx\tT\n2\n", "line 3: fewer columns than the header names"),
        ("c.tsv", "id\ttext\ttext\n1\tx\tT\n", "line 1: two columns of one name"),
        ("c.tsv", 'id\ttext\ttitle\n1\tx\tT\n2\t"open\n', "line 3: a quote opens and none closes"),
        ("c.tsv", 'id\ttext\ttitle\n1\t"Open\n2\t"A ""b"" c"\tT\n', "line 2: quotes that do not pair"),
        ("c.tsv", "id\ttext\ttitle\n1\tx\ty\tT\n", "line 2: more columns than the header names"),
        ("c.jsonl", "[" * 100_000, "line 1: not a passage: nested too deeply"),
        ("c.json", "[" * 100_000, "nested too deeply"),
        ("c.xml", '<?xml version="1.0" encoding="nope"?><mediawiki/>', "unknown encoding: nope"),
        ("c.jsonl.gz", gzip.compress(jsonl(*[PASSAGE] * 50).encode())[:-20], "truncated"),
        ("c.jsonl.bz2", bz2.compress(jsonl(*[PASSAGE] * 50).encode())[:-20], "truncated"),
        ("c.jsonl.bz2", bz2.compress(jsonl(PASSAGE).encode()) + b"BZx damaged", "unreadable file"),
        ("c.jsonl.xz", lzma.compress(jsonl(PASSAGE).encode()) + b"damaged", "unreadable file"),
        ("c.json", json.dumps({"url": "u", "title": "T", "text": ["x"]}, indent=1), "line 1: no text"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capsys, name, content, place):
    source = tmp_path / name
    source.write_bytes(content.encode() if isinstance(content, str) else content)
    message = refusal(capsys, corpus.main, *CONFIG, "--source", source, "--out", tmp_path / "out.parquet")
    assert str(source) in message
    assert place in message
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_beir_folder_is_read_by_its_corpus_and_another_is_refused(tmp_path, capsys):
    folder, out = tmp_path / "scifact", tmp_path / "o.parquet"
    (folder / "qrels").mkdir(parents=True)
    (folder / "queries.jsonl").write_text(jsonl({"_id": "q", "text": "who"}))
    argv = (*CONFIG, "--source", folder, "--out", out)
    assert f"{folder}: a folder without corpus.jsonl" in refusal(capsys, corpus.main, *argv)
    rows = jsonl({"_id": "d1", "title": "T", "text": "x", "metadata": {}})
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    call(corpus.main, *argv)
    assert storage.read(out, storage.CORPUS).to_pylist() == [{"id": "d1", "title": "T", "text": "x"}]
    (folder / "corpus.jsonl").write_text("{")
    assert f"{folder}/corpus.jsonl: line 1: not JSON" in refusal(capsys, corpus.main, *argv)


def test_a_missing_file_is_named(tmp_path, capsys):
    message = refusal(capsys, corpus.main, *CONFIG, "--source", tmp_path / "none", "--out", tmp_path / "o")
    assert "none: no such file" in message


def test_the_hash_depends_on_rows_alone(tmp_path):
    first = write_corpus(tmp_path, ROWS, "first")
    again = write_corpus(tmp_path, ROWS, "again")
    other = write_corpus(tmp_path, ROWS[:-1], "other")
    hashes = [pq.read_metadata(path).metadata[b"corpus_sha256"] for path in (first, again, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert first.read_bytes() == again.read_bytes()


def test_the_embedded_corpus_has_life_dates_and_plain_spaces(tmp_path):
    call(corpus.main, *CONFIG, "--out", tmp_path / "c.parquet")
    rows = storage.read(tmp_path / "c.parquet", storage.CORPUS).to_pylist()
    assert len(rows) == 10_033
    assert [row["id"] for row in rows] == [str(number) for number in range(10_033)]
    assert all(row["text"] == " ".join(row["text"].split()) for row in rows)
    melville = next(row for row in rows if row["title"] == "Herman Melville")
    assert melville["text"].startswith("American writer (1819–1891). Herman Melville was an American writer")
