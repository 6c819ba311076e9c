"""Fields of question files, as published files and data frames write them -> text, numbers, lists, objects.

A data frame makes whole numbers floats, what is missing NaN, and a list the text that Python or numpy prints
of it.
"""

import ast
import contextlib
import io
import json
import math
import re
import tokenize
import warnings
from collections.abc import Mapping
from typing import Any

from pipeline.characters import UNSEEN

Row = dict[str, Any]
KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
CLOSING = {"[": "]", "(": ")", "{": "}"}
QUOTED = re.compile(r"[\[({]+\s*(?:[\w.]+\(\s*)*[\"']")  # how a list or object that holds text begins
# How a list ends that holds text, whatever it begins with: `[NA, 'b']`.
ENDS_QUOTED = re.compile(r"\[.*[,\s]\s*(['\"]).*\1\s*\]", re.DOTALL)
SCALAR = re.compile(r"np\.(?:str_|float\d+|u?int\d+)\(.*\)", re.DOTALL)
# What Python's libraries print around a list.
WRAPPER = re.compile(
    r"(?:(?:np|numpy|torch)\.)?(?:array|tensor|frozenset|set|deque|dict_keys|dict_values|Index)\((?=[\[({])"
)
BYTES = re.compile(r"[bB]('|\").*\1", re.DOTALL)
BEGINS = (tokenize.NAME, tokenize.NUMBER, tokenize.STRING)
NAMES = {"nan": None, "NaT": None, "null": None, "true": True, "false": False, "inf": math.inf}


class Printed(ast.NodeTransformer):
    """What numpy and Python print as JSON has it: lists for arrays, tuples and sets, numpy's values plain."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """`array([…], dtype=object)`, `np.float64(1.0)`: what they hold."""
        name = ast.unparse(node.func)
        holds = WRAPPER.match(f"{name}([") or name.startswith("np.")
        return self.visit(node.args[0]) if holds and node.args else node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """JSON's names, and nan, which is missing."""
        return ast.Constant(NAMES[node.id]) if node.id in NAMES else node

    def visit_Tuple(self, node: ast.Tuple | ast.Set) -> ast.AST:
        """A list, in the order of the text."""
        return ast.List([self.visit(item) for item in node.elts], ast.Load())

    visit_Set = visit_Tuple


def with_commas(text: str) -> str:
    """Python's source with the commas that numpy leaves out between the items of a list."""
    words: list[str] = []
    after_value, end, lists = False, (1, 0), 0
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    for token, following in zip(tokens, [*tokens[1:], tokens[-1]], strict=True):
        word = token.string
        if token.type == tokenize.ERRORTOKEN:
            raise ValueError(f"{word} opens text that does not end on its line")
        if not word.strip():
            continue
        is_sign = word in ("-", "+") and following.start == token.end
        begins = token.type in BEGINS or word in CLOSING or is_sign
        if after_value and lists and token.start != end and begins:
            words.append(",")
        words.append(word)
        lists += (word == "[") - (word == "]")
        after_value, end = token.type in BEGINS or word in CLOSING.values(), token.end
    return " ".join(words)


def printed(text: str) -> Any:
    """What Python or numpy printed as `text`; ValueError if neither did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of backslashes
        try:
            return ast.literal_eval(Printed().visit(ast.parse(with_commas(text), mode="eval")))
        except (SyntaxError, TypeError, tokenize.TokenError, RecursionError, MemoryError) as error:
            raise ValueError(str(error)) from None


def written(text: str) -> Any:
    """The list or object that `text` is in JSON's, Python's or numpy's form; any other text itself.

    ValueError if it begins like a list or object of texts and is neither, or is what Python prints of bytes.
    `[sic]`, `(500)` and `(1, 2)` are plain text.
    """
    whole = text.translate(UNSEEN).strip()
    if SCALAR.fullmatch(whole):
        return printed(whole)
    if BYTES.fullmatch(whole):
        raise ValueError(f"found bytes as text, {whole:.60}; expected text")
    if whole[:2] in ('"[', '"{'):  # JSON in JSON
        with contextlib.suppress(ValueError, RecursionError):
            inner = written(json.loads(whole))
            return text if isinstance(inner, str) else inner
    wrapper = WRAPPER.match(whole)
    bare = whole[wrapper.end() :] if wrapper else whole
    if bare[:1] not in CLOSING:
        return text
    value: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(whole)
    with contextlib.suppress(ValueError):
        value = printed(whole) if value is None else value
    match = QUOTED.match(bare)
    is_list = isinstance(value, list) and (bare[0] == "[" or match or bare[-2:] == ",)" or not value)
    if is_list or isinstance(value, dict):
        return value
    is_cut = match and not isinstance(value, str) and (bare[0] == "[" or bare.endswith(CLOSING[bare[0]]))
    if is_cut or ENDS_QUOTED.fullmatch(whole):
        raise ValueError(f"{text!r:.60} begins like a list or object, but cannot be read as one")
    return text


def missing(value: Any) -> bool:
    """Whether a field holds nothing: null, empty or blank text, or a data frame's NaN."""
    blank = isinstance(value, str) and not value.translate(UNSEEN).strip()
    return value is None or blank or (isinstance(value, float) and math.isnan(value))


def plain(value: Any) -> str:
    """A single value as text, a whole number without `.0`; "" for what is missing.

    ValueError for anything but text and numbers.
    """
    if missing(value):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value in (math.inf, -math.inf):
        raise ValueError(f"found {value!r:.60}; expected text or a number")
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def texts(value: Any) -> list[str]:
    """Text, number, list of them, or text that is such a list (PopQA), as a list without what is missing.

    ValueError for an object, a truth value, or a list within a list.
    """
    if isinstance(value, str):
        value = written(value)
    items = value if isinstance(value, list) else [value]
    for item in items:
        if isinstance(item, list | dict):
            raise ValueError(f"found {item!r:.60}; expected text, a number, or a list of them")
    if isinstance(value, list):
        return [text for item in items for text in texts(item)]
    return [text] if (text := plain(value)) else []


def part(row: Mapping[str, Any], name: str, kind: type) -> Any:
    """`row[name]`, an empty `kind` if it is missing or empty; lists and objects may be written as text.

    ValueError if it is of another kind.
    """
    value = row.get(name)
    if isinstance(value, str) and kind in (dict, list):
        value = written(value)
    if missing(value):
        return kind()
    if not isinstance(value, kind):
        raise ValueError(f"`{name}` is {value!r:.60}; expected {KINDS[kind]}")
    return value


def objects(row: Mapping[str, Any], name: str) -> list[Row]:
    """The objects of the list `row[name]`; ValueError if there is anything else in it."""
    items = part(row, name, list)
    for item in items:
        if not isinstance(item, dict):
            raise ValueError(f"`{name}` holds {item!r:.60}; expected objects")
    return items


def whole(row: Mapping[str, Any], name: str) -> int | None:
    """The whole number `row[name]`, None if it is missing; ValueError for anything else."""
    try:
        return int(text) if (text := plain(row.get(name))) else None
    except ValueError:
        raise ValueError(f"`{name}` is {row[name]!r:.60}; expected a whole number") from None
