"""Fields that data frames and published files write in other forms than the published one."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from igpo.data.fields import part, plain, texts, whole, written

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4)


@given(TEXTS, st.sampled_from([str, repr, json.dumps, lambda items: str(tuple(items))]))
def test_a_list_written_as_text_is_that_list(items, write):
    text = write(items)
    assert not items or written(text) == items
    inner = tuple('[({ab"B')  # how a list, an array or bytes begin
    if not any(item.strip().startswith(inner) for item in items):
        assert texts(text) == texts(items) == [bare for item in items if (bare := item.strip())]


@given(st.lists(st.text("abc'\" é,[]", min_size=1), min_size=1, max_size=4))
def test_so_is_what_numpy_prints_of_it(items):
    array = np.array(items, dtype=object)
    assert written(str(array)) == items
    assert written(repr(array)) == items


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("['Ada Quill', 'A. Quill']", ["Ada Quill", "A. Quill"]),
        ('("O\'Hara",)', ["O'Hara"]),
        ("{'Ada', 'Bo'}", ["Ada", "Bo"]),
        (["['Ada', 'Bo']"], ["Ada", "Bo"]),
        ("[np.str_('Ada'), np.float64(3.0)]", ["Ada", "3"]),
        ("[1984. 1985.]", ["1984", "1985"]),
        ("[nan]", []),
        ("[NaT, 'Ada']", ["Ada"]),
        ("[ 1. -2.]", ["1", "-2"]),
        ("[3 - 1]", ["[3 - 1]"]),
        ("np.str_('Ada')", ["Ada"]),
        ("np.float64(1984.0)", ["1984"]),
        ("\ufeff['Ada']", ["Ada"]),
        (1984.0, ["1984"]),
        ([1.5, None, math.nan, "nan"], ["1.5", "nan"]),
        (json.dumps('["Ada", "Bo"]'), ["Ada", "Bo"]),
        ("np.array(['Ada', 'Bo'])", ["Ada", "Bo"]),
        ("frozenset({'Ada'})", ["Ada"]),
        ("dict_values(['Ada', 'Bo'])", ["Ada", "Bo"]),
        ("tensor([1984, 1985])", ["1984", "1985"]),
        ("Index(['Ada'], dtype='object')", ["Ada"]),
        ('"[sic]"', ['"[sic]"']),
        ("set(x)", ["set(x)"]),
        ("[sic]", ["[sic]"]),
        ("(500) Days of Summer", ["(500) Days of Summer"]),
        ("('Til) I Kissed You", ["('Til) I Kissed You"]),
        ("(1, 2)", ["(1, 2)"]),
        ("{x}", ["{x}"]),
    ],
)
def test_answers_in_odd_forms(value, expected):
    assert texts(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "['Ada', 'Bo",
        "['a' ... 'b']",
        "[<NA>, 'b']",
        "[a, 'b']",
        "[inf]",
        "['a\nb']",
        "{'value': 'Ada'}",
        True,
        [True],
        math.inf,
        b"Ada",
        "b'Ada'",
        [["Ada"]],
    ],
)
def test_what_cannot_be_read_is_an_error(value):
    with pytest.raises(ValueError, match=r"found|cannot be read"):
        texts(value)


def test_lists_and_objects_may_be_text():
    row = {"facts": '[["T", 0]]', "info": "{'index': 7}", "none": math.nan, "text": "['a']"}
    assert part(row, "facts", list) == [["T", 0]]
    assert part(row, "info", dict) == {"index": 7}
    assert part(row, "none", dict) == {}
    assert part(row, "text", str) == "['a']"
    with pytest.raises(ValueError, match=r"`facts` is .*; expected an object"):
        part(row, "facts", dict)


def test_numbers_that_a_data_frame_made_floats():
    assert plain(7.0) == "7"
    assert plain(math.nan) == plain(None) == plain(" ") == ""
    assert part({"question": " \n"}, "question", str) == ""
    assert whole({"hops": 2.0}, "hops") == 2
    assert whole({"hops": math.nan}, "hops") is None
    for value in (2.5, True, "two"):
        with pytest.raises(ValueError, match=r"`hops` is .*; expected a whole number"):
            whole({"hops": value}, "hops")
