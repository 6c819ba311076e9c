"""Published forms of questions, as people write them: what is read, and what is an error."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from question_rows import (
    BOTH,
    FLASHRAG,
    HOTPOT,
    HUB,
    IGPO,
    MUSIQUE,
    NQ_OPEN,
    ONE,
    POPQA,
    REVIEW,
    SEARCH_R1,
    SEARCH_R1_ROW,
    TWO_WIKI,
    VERL,
)

from igpo import questions
from igpo.data.question_forms import load
from igpo.experiment.schema import QUESTIONS
from pipeline.errors import UserError

SPLITS = questions.SPLITS


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (IGPO, ("bamboogle_7", "bamboogle", BOTH, 0, "")),
        (SEARCH_R1_ROW, ("nq_7", "nq", BOTH, 0, "")),
        (VERL, ("nq_7", "nq", BOTH, 0, "")),
        (FLASHRAG, ("file_test_7", "file", BOTH, 0, "")),
        (REVIEW, ("hotpotqa_q7", "hotpotqa", ONE, 0, "")),
        (HOTPOT, ("file_5a7", "file", ONE, 2, "bridge")),
        (HUB, ("file_5a7", "file", ONE, 2, "bridge")),
        (TWO_WIKI, ("file_5a7", "file", ONE, 2, "comparison")),
        (MUSIQUE, ("file_3hop1__1_2_3", "file", BOTH, 3, "")),
        (POPQA, ("file_7", "file", BOTH, 1, "author")),
        (NQ_OPEN, ("file_0", "file", BOTH, 0, "")),
    ],
)
@pytest.mark.parametrize("form", ["list.json", "lines.json", "lines.jsonl", "parquet"])
def test_every_published_form_is_read(tmp_path, form, row, expected):
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
    (question,) = load(path)
    assert question.keys() == {*QUESTIONS.names, "supports"}
    assert (
        tuple(question[name] for name in ("question_id", "benchmark", "answers", "hops", "type")) == expected
    )
    assert question["question"].rstrip("?").casefold() == "who wrote hamlet"
    assert question["supporting_ids"] == (["12", "d3"] if row.get("dataset") == "hotpotqa" else [])
    assert question["split"] == "test"  # whatever the row says of its original data set


def test_a_question_in_plain_text_stays_as_it_is(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps({"question": "Question: what is it?", "answer": "x"}))
    assert load(path)[0]["question"] == "Question: what is it?"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("[sic] no list", ["[sic] no list"]),
        (1969, ["1969"]),
        (["a", "a", " "], ["a"]),
        ("no", ["no"]),
        ("\ufeffAda\u200e", ["Ada"]),
        (["\u200b", "Ada"], ["Ada"]),
        ("a<|answer_split|>b", ["a", "b"]),
    ],
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
        ({"question": " \u200b", "prompt": "\ufeffwho?"}, "who?"),
        ({"prompt": SEARCH_R1, "extra_info": {"question": "Who?"}}, "Who?"),
        ({"prompt": json.dumps(VERL["prompt"])}, "who wrote hamlet?"),
        ({"prompt": str(VERL["prompt"]), "extra_info": "{'index': 7}"}, "who wrote hamlet?"),
    ],
)
def test_the_question_of_a_prompt(tmp_path, row, question):
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps({**row, "answer": "a"}))
    assert load(path)[0]["question"] == question


@pytest.mark.parametrize(
    "prompt",
    [
        "Think first. Question: who?",
        "Think first\nQuestion: who?",
        "Think first. User question: who?",
        "Think first.\n**Question:** who?",
        "Think first.\nQuestion：who?",
        "Question: who? Answer:",
        "Answer inside <answer> and </answer>. Who?",
        "who?\nReason in <think> first.",
        "<|im_start|>user\nwho?<|im_end|>",
    ],
)
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
        assert [question["answers"] for question in load(path)] == [[f"a{mark}b"]] * 2
    path.write_text('{"question": "q", "answer": "a"}\n\n{"question": "q", "answer": "a"}\n')
    with pytest.raises(UserError, match="line 2: empty line"):
        load(path)


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
    (question,) = load(tmp_path / "2wiki.parquet")
    assert question["supports"] == [("Hamlet", ""), ("Bard", "")]


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
        ('{"question": "q", "answer": "a", "answerable": false}', r"none of its 1 questions is answerable"),
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
