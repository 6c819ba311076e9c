"""Questions written in every published form are read back as they were."""

import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from question_rows import (
    FLASHRAG,
    HUB,
    IGPO,
    MUSIQUE,
    POPQA,
    VERL,
)

from igpo.data.question_forms import load
from pipeline.characters import single_spaces

# Text as people write it; what begins like a list is one, and an error if it can't be read (docs/inputs.md).
PLAIN = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=40).filter(
    lambda text: text.strip() and text.strip()[0] not in "[({" and "<|" not in text
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
    golds = answers[:1] if form == "hotpotqa" else answers
    assert first["question"] == second["question"] == single_spaces(question)
    assert first["answers"] == list(dict.fromkeys(answer.strip() for answer in golds))
    assert first["question_id"] != second["question_id"]
