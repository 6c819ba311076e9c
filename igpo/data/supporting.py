"""Supporting passages that question files name by title, or by title and text -> ids of a corpus."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from igpo.data.fields import Row, objects, part, written
from igpo.experiment.schema import QUESTIONS
from pipeline.characters import single_spaces
from retrieval.indexes import passages


def find_titles(row: Mapping[str, Any]) -> list[str]:
    """A title for each of HotpotQA's and 2Wiki's `supporting_facts`; ValueError if they lack one."""
    facts = row.get("supporting_facts")
    facts = written(facts) if isinstance(facts, str) else facts
    if isinstance(facts, dict):
        titles = part(facts, "title", list)
    else:
        pairs = part(row, "supporting_facts", list)
        titles = [pair[0] if isinstance(pair, list) and pair else None for pair in pairs]
    if not all(isinstance(title, str) for title in titles):
        raise ValueError(f"`supporting_facts` is {facts!r:.60}; expected pairs of title and sentence number")
    return titles


def find_paragraphs(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(title, text) of MuSiQue's and PopQA's supporting `paragraphs`, MuSiQue's in the order of its hops."""
    steps = part(row, "question_decomposition", list)
    hops = [step.get("paragraph_support_idx") for step in steps if isinstance(step, dict)]
    paragraphs = [
        paragraph for paragraph in objects(row, "paragraphs") if part(paragraph, "is_supporting", bool)
    ]
    paragraphs.sort(key=lambda item: hops.index(item.get("idx")) if item.get("idx") in hops else len(hops))
    return [
        (part(item, "title", str), part(item, "paragraph_text", str) or part(item, "text", str))
        for item in paragraphs
    ]


def find_supports(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(title, text) of each supporting passage of a raw row, once; text "" if the form has titles alone.

    ValueError if the row is malformed.
    """
    pairs = [(title, "") for title in find_titles(row)] or find_paragraphs(row)
    return list(dict.fromkeys((single_spaces(title), single_spaces(text)) for title, text in pairs))


def find_passages(corpus: Path, titles: set[str]) -> dict[str, dict[str, str]]:
    """{title: {text: id of the first passage with both}} for the titles asked for, off a stream."""
    title_array = pa.array(sorted(titles), pa.string())
    passage_ids: dict[str, dict[str, str]] = defaultdict(dict)
    for batch in passages.batches(corpus):
        for row in batch.filter(pc.is_in(batch["title"], title_array)).to_pylist():
            passage_ids[row["title"]].setdefault(single_spaces(row["text"]), row["id"])
    return dict(passage_ids)


def choose(candidates: Mapping[str, str], text: str) -> str | None:
    """Id of the candidate ({text: id}) with this text, of the only one if the text is "", else None."""
    if text:
        return candidates.get(text)
    return next(iter(candidates.values())) if len(candidates) == 1 else None


def resolve(rows: list[Row], corpus: Path | None) -> list[Row]:
    """Rows of `QUESTIONS`: those with `supports` (title, text) get the ids that these have in `corpus`.

    A question keeps no ids if one of its passages isn't found, or the title alone names several.
    """
    titles = {title for row in rows for title, _ in row["supports"] if title}
    ids_by_title = find_passages(corpus, titles) if corpus and titles else {}
    result = []
    for row in rows:
        ids = [choose(ids_by_title.get(title, {}), text) for title, text in row["supports"]]
        supporting_ids = ids if all(ids) else []
        plain = {name: row[name] for name in QUESTIONS.names}
        result.append({**plain, "supporting_ids": row["supporting_ids"] or supporting_ids})
    return result
