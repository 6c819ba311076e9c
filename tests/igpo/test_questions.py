import gzip
import json
import lzma
import re
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from root import ROOT

from igpo import questions
from igpo.data import supporting
from igpo.data.question_forms import find_benchmark, load
from igpo.experiment.schema import QUESTIONS
from pipeline import storage
from pipeline.errors import UserError
from pipeline.spaces import single_spaces

SPLITS = questions.SPLITS
SHARED = ROOT.parent / "shared" / "data"
PARAMS = {
    "source": "vitalqa",
    "seed": 1,
    "dev_share": 0.1,
    "test_share": 0.15,
    "passage_chars": 320,
    "headline_types": ["birth_year"],
}
SEARCH_R1 = (
    "Answer the given question. You must reason inside <think> first. "
    "For example, <answer> Beijing </answer>. "
    "Question: who wrote hamlet?\n"
)

IGPO = {
    "data_source": "Bamboogle",
    "prompt": [{"content": "Who wrote Hamlet?", "role": "user"}],
    "ability": "search & question answering",
    "reward_model": {"ground_truth": "Shakespeare<|answer_split|>the Bard", "style": "unknown"},
    "extra_info": {"index": "bamboogle_7", "split": "dev"},
}
SEARCH_R1_ROW = {
    "data_source": "nq",
    "prompt": [{"content": SEARCH_R1, "role": "user"}],
    "ability": "fact-reasoning",
    "reward_model": {"style": "rule", "ground_truth": {"target": ["Shakespeare", "the Bard"]}},
    "extra_info": {"split": "train", "index": 7},
}
VERL = {
    **SEARCH_R1_ROW,
    "data_source": "searchR1_nq",
    "prompt": [
        {"content": "You search.", "role": "system"},
        {"content": "who wrote hamlet?", "role": "user"},
    ],
}
FLASHRAG = {
    "id": "test_7",
    "question": "Who wrote Hamlet?",
    "golden_answers": ["Shakespeare", "the Bard"],
    "metadata": {"a": 1},
}
REVIEW = {
    "id": "q7",
    "question": "Who wrote Hamlet?",
    "answer": "Shakespeare",
    "positive_doc_ids": [12, "d3"],
    "dataset": "hotpotqa",
    "split": "train",
}
HOTPOT = {
    "_id": "5a7",
    "question": "Who wrote Hamlet?",
    "answer": "Shakespeare",
    "type": "bridge",
    "level": "hard",
    "supporting_facts": [["Hamlet", 0], ["Hamlet", 1], ["Bard", 0]],
    "context": [["Hamlet", ["A play."]]],
}
HUB = {
    **HOTPOT,
    "supporting_facts": {"title": ["Hamlet", "Bard"], "sent_id": [0, 1]},
    "context": {"title": ["Hamlet"], "sentences": [["A play."]]},
}
TWO_WIKI = {**HOTPOT, "type": "comparison", "evidences": [["a", "b", "c"]], "answer_id": "Q692"}
MUSIQUE = {
    "id": "3hop1__1_2_3",
    "question": "Who wrote Hamlet?",
    "answer": "Shakespeare",
    "answer_aliases": ["the Bard"],
    "answerable": True,
    "paragraphs": [{"idx": 0, "title": "Hamlet", "paragraph_text": "A play.", "is_supporting": True}],
}
POPQA = {
    "id": 7,
    "subj": "Hamlet",
    "prop": "author",
    "obj": "Shakespeare",
    "s_aliases": '["Prince"]',
    "possible_answers": '["Shakespeare", "the Bard"]',
    "question": "Who wrote Hamlet?",
    "paragraphs": [{"title": "Hamlet", "text": "A play.", "is_supporting": True}],
}
NQ_OPEN = {"question": "who wrote hamlet", "answer": ["Shakespeare", "the Bard"]}
BOTH, ONE = ["Shakespeare", "the Bard"], ["Shakespeare"]


@pytest.mark.parametrize(
    ("row", "question_id", "benchmark", "answers", "hops", "type_"),
    [
        (IGPO, "bamboogle_7", "bamboogle", BOTH, 0, ""),
        (SEARCH_R1_ROW, "nq_7", "nq", BOTH, 0, ""),
        (VERL, "nq_7", "nq", BOTH, 0, ""),
        (FLASHRAG, "file_test_7", "file", BOTH, 0, ""),
        (REVIEW, "hotpotqa_q7", "hotpotqa", ONE, 0, ""),
        (HOTPOT, "file_5a7", "file", ONE, 2, "bridge"),
        (HUB, "file_5a7", "file", ONE, 2, "bridge"),
        (TWO_WIKI, "file_5a7", "file", ONE, 2, "comparison"),
        (MUSIQUE, "file_3hop1__1_2_3", "file", BOTH, 3, ""),
        (POPQA, "file_7", "file", BOTH, 1, "author"),
        (NQ_OPEN, "file_0", "file", BOTH, 0, ""),
    ],
)
@pytest.mark.parametrize("form", ["list.json", "lines.json", "lines.jsonl", "parquet"])
def test_every_published_form_is_read(tmp_path, form, row, question_id, benchmark, answers, hops, type_):
    """Disagreement 25: gold answers are those of the file, NQ-open's or those of the released test file."""
    path = tmp_path / f"file.{form.rpartition('.')[2]}"
    if form == "parquet":
        if row in (HOTPOT, TWO_WIKI):
            pytest.skip("lists of mixed types exist in JSON only")
        row = {**row, "positive_doc_ids": ["12", "d3"]} if row is REVIEW else row
        pq.write_table(pa.Table.from_pylist([row]), path)
    elif form == "list.json":
        path.write_text(json.dumps([row], indent=1))
    else:
        path.write_text(json.dumps(row) + "\n\n")
    (read,) = load(path)
    assert read.keys() == {*QUESTIONS.names, "supports"}
    assert read["question_id"] == question_id
    assert read["benchmark"] == benchmark
    assert read["question"].rstrip("?").casefold() == "who wrote hamlet"
    assert read["answers"] == answers
    assert read["hops"] == hops
    assert read["type"] == type_
    assert read["supporting_ids"] == (["12", "d3"] if row.get("dataset") == "hotpotqa" else [])
    assert read["split"] == "test"  # whatever the row says of its original data set


# Text as people write it; what begins like a list is one, and an error if it can't be read (docs/inputs.md).
PLAIN = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=40).filter(
    lambda text: text.strip() and text.strip()[0] not in "[({"
)
WRITTEN = {  # form -> a row that asks a question with these answers
    "igpo": lambda question, answers: {
        **IGPO,
        "prompt": [{"content": question, "role": "user"}],
        "reward_model": {"ground_truth": "<|answer_split|>".join(answers)},
    },
    "verl": lambda question, answers: {
        **VERL,
        "prompt": [{"content": "You search.", "role": "system"}, {"content": question, "role": "user"}],
        "reward_model": {"style": "rule", "ground_truth": {"target": answers}},
    },
    "flashrag": lambda question, answers: {**FLASHRAG, "question": question, "golden_answers": answers},
    "hotpotqa": lambda question, answers: {**HUB, "question": question, "answer": answers[0]},
    "musique": lambda question, answers: {
        **MUSIQUE,
        "question": question,
        "answer": answers[0],
        "answer_aliases": answers[1:],
    },
    "popqa": lambda question, answers: {
        **POPQA,
        "question": question,
        "possible_answers": json.dumps(answers),
    },
    "nq_open": lambda question, answers: {"question": question, "answer": answers},
}


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("form", WRITTEN)
@given(question=PLAIN, answers=st.lists(PLAIN, min_size=1, max_size=3))
@settings(max_examples=30)
def test_what_is_written_in_a_published_form_is_read_back(form, suffix, question, answers):
    row = WRITTEN[form](question, answers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"file.{suffix}")
        if suffix == "parquet":
            pq.write_table(pa.Table.from_pylist([row, row]), path)
        else:
            path.write_text(json.dumps([row, row]) if suffix == "json" else 2 * f"{json.dumps(row)}\n")
        first, second = load(path)
    known = answers[:1] if form == "hotpotqa" else answers
    assert first["question"] == second["question"] == single_spaces(question)
    assert first["answers"] == list(dict.fromkeys(answer.strip() for answer in known))
    assert first["question_id"] != second["question_id"]


def test_a_question_in_plain_text_stays_as_it_is(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps({"question": "Question: what is it?", "answer": "x"}))
    assert load(path)[0]["question"] == "Question: what is it?"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("[sic] no list", ["[sic] no list"]), (1969, ["1969"]), (["a", "a", " "], ["a"]), ("no", ["no"])],
)
def test_answers_of_odd_types(tmp_path, answer, expected):
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps({"question": "q", "answer": answer}))
    assert load(path)[0]["answers"] == expected


@pytest.mark.parametrize(
    ("row", "question"),
    [
        (
            {"prompt": "Who wrote The Last Question: A Story of Time?"},
            "Who wrote The Last Question: A Story of Time?",
        ),
        (
            {"prompt": SEARCH_R1.replace("hamlet", "The Question: A Story")},
            "who wrote The Question: A Story?",
        ),
        ({"prompt": "Question: who wrote it?"}, "who wrote it?"),
        ({"prompt": SEARCH_R1, "extra_info": {"question": "Who?"}}, "Who?"),
        ({"prompt": json.dumps(VERL["prompt"])}, "who wrote hamlet?"),
        ({"prompt": str(VERL["prompt"]), "extra_info": "{'index': 7}"}, "who wrote hamlet?"),
    ],
)
def test_the_question_of_a_prompt(tmp_path, row, question):
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps({**row, "answer": "a"}))
    assert load(path)[0]["question"] == question


@pytest.mark.parametrize("prompt", ["Think first. Question: who?", "Think first\nQuestion: who?"])
def test_an_instruction_of_another_form_is_an_error(tmp_path, prompt):
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps({"prompt": prompt, "answer": "a"}))
    with pytest.raises(UserError, match="row 0: `prompt` holds an instruction of another form"):
        load(path)


@pytest.mark.parametrize(
    "truth",
    [
        '{"target": ["Ada Quill", "A. Q."]}',
        "{'target': array(['Ada Quill', 'A. Q.'], dtype=object)}",
        "['Ada Quill' 'A. Q.']",
    ],
)
def test_a_ground_truth_may_be_text(tmp_path, truth):
    path = tmp_path / "file.parquet"
    row = {"question": "q", "reward_model": {"ground_truth": truth}}
    pq.write_table(pa.Table.from_pylist([row, {**row, "reward_model": row["reward_model"]}]), path)
    assert load(path)[0]["answers"] == ["Ada Quill", "A. Q."]
    pq.write_table(pa.Table.from_pylist([{**row, "reward_model": json.dumps(row["reward_model"])}]), path)
    assert load(path)[0]["answers"] == ["Ada Quill", "A. Q."]


def test_what_a_data_frame_leaves_out_is_missing(tmp_path):
    path = tmp_path / "nq.jsonl"
    path.write_text(
        '{"id": NaN, "question": "q", "answer": 1984.0, "hops": 2.0, "type": NaN, "dataset": NaN}'
    )
    (row,) = load(path)
    assert (row["question_id"], row["benchmark"], row["answers"]) == ("nq_0", "nq", ["1984"])
    assert (row["hops"], row["type"]) == (2, "")
    path.write_text('{"question": "q", "answer": NaN}')
    with pytest.raises(UserError, match="row 0: no answers"):
        load(path)


def test_a_line_of_json_ends_at_a_line_feed_alone(tmp_path):
    path = tmp_path / "file.jsonl"
    for mark in ("\u2028", "\u2029", "\x85", "\x0c"):
        row = {"question": f"one{mark}two", "answer": f"a{mark}b"}
        path.write_text("\n".join([json.dumps(row, ensure_ascii=False)] * 2), newline="")
        assert [read["answers"] for read in load(path)] == [[f"a{mark}b"]] * 2
    path.write_text('{"question": "q", "answer": "a"}\n\n{"question": "q", "answer": "a"}\n')
    with pytest.raises(UserError, match="line 2: empty line"):
        load(path)


def test_questions_may_be_compressed(tmp_path, caplog):
    text = json.dumps({"question": "q", "answer": "a"}).encode()
    (tmp_path / "nq.jsonl.gz").write_bytes(gzip.compress(text))
    (tmp_path / "tq.json.xz").write_bytes(lzma.compress(b"[" + text + b"]"))
    (tmp_path / "notes.txt").write_text("x")
    run("--source", tmp_path, "--out", tmp_path / "out")
    read = storage.read(tmp_path / "out/test.parquet", QUESTIONS)
    assert read["benchmark"].to_pylist() == ["nq", "tq"]
    assert "left out, no question files by their names: notes.txt" in caplog.text


def test_questions_without_an_answer_are_left_out_and_counted(tmp_path, caplog):
    path = tmp_path / "musique.jsonl"
    twins = [MUSIQUE, {**MUSIQUE, "answerable": False}, {**MUSIQUE, "id": "x", "answerable": float("nan")}]
    path.write_text("\n".join(map(json.dumps, twins)))
    assert [row["question_id"] for row in load(path)] == ["musique_3hop1__1_2_3", "musique_x"]
    assert "1 questions that are not answerable are left out" in caplog.text
    path.write_text(json.dumps({**MUSIQUE, "answerable": "no"}))
    with pytest.raises(UserError, match="`answerable` is 'no'; expected true or false"):
        load(path)


def test_two_wiki_of_the_hub_has_its_lists_as_text(tmp_path):
    row = {
        **TWO_WIKI,
        "supporting_facts": '[["Hamlet", 0], ["Bard", 1]]',
        "context": '[["Hamlet", ["A play."]]]',
    }
    pq.write_table(pa.Table.from_pylist([{**row, "evidences": "[]"}]), tmp_path / "2wiki.parquet")
    (read,) = load(tmp_path / "2wiki.parquet")
    assert read["supports"] == [("Hamlet", ""), ("Bard", "")]


def test_ids_that_repeat_get_their_row_number(tmp_path):
    path = tmp_path / "file.jsonl"
    row = {"id": "7", "question": "q", "answer": "a"}
    path.write_text("\n".join(json.dumps(r) for r in (row, row, {**row, "id": "8"})))
    assert [r["question_id"] for r in load(path)] == ["file_7_0", "file_7_1", "file_8"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"question": "a", "answer": "b"}\n{"question": "q"}', r"row 1: no answers; add `golden_answers`"),
        ('{"question": "q", "answer": []}', r"row 0: no answers"),
        ('{"question": "q", "reward_model": {"ground_truth": ""}}', r"row 0: no answers"),
        ('{"answer": "a"}', r"row 0: no question; add `question`"),
        ('{"question": ', r"neither parquet, nor JSON lines"),
        ("[1]", r"row 0: expected an object"),
        ('{"prompt": [1], "answer": "a"}', r"row 0: `prompt` holds 1; expected objects"),
        ('{"prompt": {"a": 1}, "answer": "a"}', r"row 0: `prompt` is {'a': 1}; expected a list"),
        ('{"question": ["q"], "answer": "a"}', r"row 0: `question` is \['q'\]; expected text"),
        ('{"question": "q", "reward_model": "a"}', r"row 0: `reward_model` is 'a'; expected an object"),
        ('{"question": "q", "answer": "a", "extra_info": "7"}', r"`extra_info` is '7'; expected an object"),
        ('{"question": "q", "answer": {"value": "a"}}', r"row 0: found {'value': 'a'}; expected text"),
        ('{"question": "q", "answer": "a", "hops": "two"}', r"`hops` is 'two'; expected a whole number"),
        ('{"question": "q", "answer": "a", "hops": 300}', r"`hops` is 300; expected int8"),
        ('{"question": "q", "answer": "a", "supporting_facts": "t"}', r"is 't'; expected a list"),
        ('{"question": "q", "answer": "a", "supporting_facts": [7]}', r"is \[7\]; expected pairs of title"),
        ('{"question": "q", "answer": "a", "paragraphs": ["t"]}', r"holds 't'; expected objects"),
        ("", r"no rows"),
    ],
)
def test_a_wrong_file_is_named_with_its_row_and_a_remedy(tmp_path, text, message):
    path = tmp_path / "file.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load(path)
    assert str(path) in str(error.value)


def test_a_missing_file_and_a_false_parquet_file_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "none.parquet")
    (tmp_path / "false.parquet").write_text("text")
    with pytest.raises(UserError, match="neither parquet"):
        load(tmp_path / "false.parquet")


def run(*arguments):
    questions.main(["--config", json.dumps(PARAMS), *map(str, arguments)])


def stage_corpus(folder):
    people = [
        {
            "id": f"{i:02}",
            "title": f"Jane {chr(65 + i)}vers",
            "text": f"English writer ({1700 + i}–{1780 + i}). She.",
        }
        for i in range(26)
    ]
    meta = {"corpus_sha256": "of these people"}
    storage.write(people, storage.CORPUS, folder / "corpus.parquet", ("id",), meta)
    return folder / "corpus.parquet"


def test_the_stage_writes_three_tables_that_it_can_read_again(tmp_path, capsys):
    run("--source", "vitalqa", "--corpus", stage_corpus(tmp_path), "--out", tmp_path / "a")
    assert "vitalqa train" in capsys.readouterr().out
    rows = []
    for split in questions.SPLITS:
        path = tmp_path / "a" / f"{split}.parquet"
        table = storage.read(path, QUESTIONS).to_pylist()
        assert storage.footer(path, "corpus_sha256") == "of these people"
        assert {row["split"] for row in table} <= {split}
        if table:
            assert load(path) == [{**row, "supports": []} for row in table]
        rows += table
    assert len([row for row in rows if row["type"] == "birth_year"]) == 26
    run("--source", "vitalqa", "--corpus", tmp_path / "corpus.parquet", "--out", tmp_path / "b")
    for split in questions.SPLITS:
        first, second = (tmp_path / name / f"{split}.parquet" for name in "ab")
        assert first.read_bytes() == second.read_bytes()


def test_a_foreign_file_becomes_test_questions_and_empty_train_and_dev(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps(REVIEW))
    run("--source", path, "--out", tmp_path / "out")
    sizes = [storage.read(tmp_path / "out" / f"{s}.parquet", QUESTIONS).num_rows for s in questions.SPLITS]
    assert sizes == [0, 0, 1]


def test_a_file_for_each_split(tmp_path):
    for split, count in (("train", 2), ("test", 1)):
        rows = [{**REVIEW, "id": f"{split}{i}", "question": f"{split}?"} for i in range(count)]
        (tmp_path / f"b_{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run("--source", tmp_path / "b_{split}.jsonl", "--out", tmp_path / "out")
    tables_read = [storage.read(tmp_path / f"out/{s}.parquet", QUESTIONS) for s in questions.SPLITS]
    assert [table.num_rows for table in tables_read] == [2, 0, 1]
    assert tables_read[0]["split"].to_pylist() == ["train"] * 2
    with pytest.raises(UserError, match=r"none of .*c_train\.jsonl, .*c_dev\.jsonl"):
        questions.source_files([str(tmp_path / "c_{split}.jsonl")])


RAW = {  # files as the benchmarks publish them, and the benchmark that each is
    "NQ-open.dev.jsonl": (NQ_OPEN, "nq"),
    "triviaqa_test.jsonl": (FLASHRAG, "tq"),
    "hotpot_dev_distractor_v1.json": (HOTPOT, "hotpotqa"),
    "2wikimultihop_dev.json": (TWO_WIKI, "2wiki"),
    "musique_ans_v1.0_dev.jsonl": (MUSIQUE, "musique"),
    "bamboogle.json": (IGPO, "bamboogle"),
    "popqa_longtail.json": (POPQA, "popqa"),
}


def test_the_seven_benchmarks_raw_files_are_one_experiment(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "README.md").write_text("not questions")
    for name, (row, _) in RAW.items():
        (raw / name).write_text(json.dumps(row))
    run("--source", raw, "--out", tmp_path / "folder")
    run("--source", *sorted(raw.glob("*.json*")), "--out", tmp_path / "list")
    folder, listed = (
        storage.read(tmp_path / name / "test.parquet", QUESTIONS) for name in ("folder", "list")
    )
    assert folder == listed
    assert sorted(folder["benchmark"].to_pylist()) == sorted(benchmark for _, benchmark in RAW.values())


@pytest.mark.parametrize(
    ("row", "file", "expected"),
    [
        ({"data_source": "searchR1_triviaqa"}, "mine", "tq"),
        ({"data_source": "2wikimultihopqa"}, "nq", "2wiki"),
        ({"dataset": "nq_hard"}, "nq", "nq_hard"),
        ({}, "2WikiMultihopQA-dev", "2wiki"),
        ({}, "hotpotqa1k", "hotpotqa"),
        ({}, "nqueens", "nqueens"),
        ({}, "my_nq", "my_nq"),
    ],
)
def test_benchmarks_have_the_names_of_the_papers_tables(row, file, expected):
    assert find_benchmark(row, Path(f"{file}.jsonl")) == expected


def test_files_of_one_split_beside_files_for_each(tmp_path):
    for name, count in (("hotpotqa_train", 2), ("hotpotqa_test", 1), ("nq_a", 1), ("nq_b", 1)):
        rows = [{"question": f"{name} {i}?", "answer": "a"} for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = [tmp_path / f"{name}.jsonl" for name in ("hotpotqa_{split}", "nq_a", "nq_b")]
    run("--source", *files, "--out", tmp_path / "out")
    ids = [storage.read(tmp_path / f"out/{s}.parquet", QUESTIONS)["question_id"].to_pylist() for s in SPLITS]
    assert ids == [["hotpotqa_0", "hotpotqa_1"], [], ["hotpotqa_0", "nq_0_3", "nq_0_4"]]


def test_a_question_stands_in_one_split_only(tmp_path, capsys, caplog):
    asked = {
        "train": ["only train", "In dev?", "in test"],
        "dev": ["in dev", "In  TEST!"],
        "test": ["in test?"],
    }
    for split, texts in asked.items():
        rows = [{"question": text, "answer": "a"} for text in texts]
        (tmp_path / f"b_{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run("--source", tmp_path / "b_{split}.jsonl", "--out", tmp_path / "out")
    left = [storage.read(tmp_path / f"out/{s}.parquet", QUESTIONS)["question"].to_pylist() for s in SPLITS]
    assert left == [["only train"], ["in dev"], ["in test?"]]
    assert "2 taken out of train, 1 taken out of dev" in capsys.readouterr().out
    assert "1 questions of dev stand in a later split: taken out" in caplog.text


def test_our_own_columns_keep_their_split(tmp_path):
    row = {"question_id": "a", "benchmark": "b", "question": "q", "answers": ["x"], "split": "dev"}
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(row))
    (read,) = load(path)
    assert read == {**row, "supporting_ids": [], "hops": 0, "type": "", "supports": []}
    path.write_text(json.dumps({**row, "split": "validation"}))
    with pytest.raises(UserError, match="row 0: split 'validation'; expected one of train"):
        load(path)


OWN = {"question_id": "a", "benchmark": "b", "question": "q", "answers": ["x"], "split": "dev"}


def test_one_answer_in_our_own_columns_may_be_text(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(OWN | {"answers": "two words", "hops": None}))
    run("--source", path, "--out", tmp_path)
    (read,) = storage.read(tmp_path / "dev.parquet", QUESTIONS).to_pylist()
    assert read == {**OWN, "answers": ["two words"], "supporting_ids": [], "hops": 0, "type": ""}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": None}, "no split; add it"),
        ({"benchmark": None}, "no benchmark; add it"),
        ({"answers": [" "]}, "no answers; add it"),
        ({"question_id": 7}, "`question_id` is 7; expected string"),
        ({"hops": "two"}, "`hops` is 'two'; expected int8"),
        ({"answers": {"a": 1}}, "found {'a': 1}; expected text"),
    ],
)
def test_a_wrong_row_in_our_own_columns_is_named(tmp_path, change, message):
    path = tmp_path / "own.jsonl"
    later = {name: value for name, value in (OWN | change).items() if value is not None}
    path.write_text("\n".join(map(json.dumps, (OWN, later))))
    with pytest.raises(UserError, match=f"row 1: {re.escape(message)}"):
        load(path)


def test_a_prompt_in_plain_text_is_the_question(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps(VERL | {"prompt": SEARCH_R1}))
    assert load(path)[0]["question"] == "who wrote hamlet?"


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
    (read,) = storage.read(tmp_path / "test.parquet", QUESTIONS).to_pylist()
    assert read["supporting_ids"] == expected
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


@pytest.mark.parametrize("several", [False, True])
def test_without_source_the_parameters_name_it(tmp_path, several):
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps(NQ_OPEN))
    config = json.dumps(PARAMS | {"source": [str(path)] if several else str(path)})
    questions.main(["--config", config, "--out", str(tmp_path)])
    assert storage.read(tmp_path / "test.parquet", QUESTIONS)["question"].to_pylist() == ["who wrote hamlet"]


def test_the_stage_ends_in_one_line_where_the_user_can_mend_it(tmp_path, capsys):
    (tmp_path / "file.jsonl").write_text('{"question": "q"}')
    for arguments in (["--source", tmp_path / "file.jsonl"], ["--source", "vitalqa"]):
        with pytest.raises(SystemExit) as stop:
            run(*arguments, "--out", tmp_path / "out")
        assert stop.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the project's shared data are not beside the repository")
def test_the_released_test_file_has_long_golds_of_nq():
    """Disagreement 25: a third of the first golds are long answers."""
    first = [row["answers"][0] for row in load(SHARED / "igpo_test.parquet") if row["benchmark"] == "nq"]
    assert sum(len(gold.split()) > 20 for gold in first) == 172
    assert len(first) == 512


@pytest.mark.skipif(not SHARED.is_dir(), reason="the project's shared data are not beside the repository")
def test_the_published_dev_file_shares_questions_with_the_test_file(tmp_path, capsys):
    run("--source", SHARED / "igpo_{split}.parquet", "--out", tmp_path)
    assert "190 taken out of dev" in capsys.readouterr().out
    sizes = [storage.read(tmp_path / f"{split}.parquet", QUESTIONS).num_rows for split in SPLITS]
    assert sizes == [0, 875 - 190, 3197]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the project's shared data are not beside the repository")
def test_real_benchmark_files_are_read_whole():
    for path in sorted(SHARED.glob("*.parquet")):
        rows = load(path)
        assert len(rows) == pq.read_metadata(path).num_rows
        assert len({row["question_id"] for row in rows}) == len(rows)
        assert all(row["question"] and all(row["answers"]) for row in rows)
        assert all(row["supporting_ids"] and row["hops"] for row in rows) == ("closed" in path.name)
