"""The protocols by name. `rollout.protocol` chooses one, the rollouts' metadata remember it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from igpo.protocols import deepresearcher, few_shot, igpo, r1_searcher, react, search_o1, search_r1
from igpo.protocols.protocol import FIELD, TOOLS, Protocol
from pipeline.errors import UserError
from pipeline.settings import nearest

PROTOCOLS: dict[str, Protocol] = {
    "igpo": igpo.PROTOCOL,
    "deepresearcher": deepresearcher.PROTOCOL,
    "search_r1": search_r1.PROTOCOL,
    "r1_searcher": r1_searcher.PROTOCOL,
    "react": react.PROTOCOL,
    "search_o1": search_o1.PROTOCOL,
    "closed_book": few_shot.DIRECT,
    "closed_book_cot": few_shot.COT,
    "rag": few_shot.with_passages(few_shot.DIRECT),
    "rag_cot": few_shot.with_passages(few_shot.COT),
}


def find(name: str) -> Protocol:
    """The protocol of a name. Raises UserError with the nearest name for an unknown one."""
    if name not in PROTOCOLS:
        raise UserError(f"unknown protocol {name!r}; nearest: {nearest(name, PROTOCOLS)!r}")
    return PROTOCOLS[name]


def prepare(
    name: str,
    tools: Sequence[str] = TOOLS[:1],
    instructions: str | None = None,
    date: str = Protocol.date,
) -> Protocol:
    """The protocol of a name for `tools` and `date`, with other `instructions` where they are given.

    Raises UserError for a tool that it has no form for, for instructions without its fields, and for no date.
    """
    chosen = find(name)
    opens = "open" in tools
    if opens and chosen.observation and chosen.open is None:
        raise UserError(f"rollout.tools: protocol {name!r} has no 'open'; give [web_search]")
    text = instructions or chosen.instructions
    fields = sorted(FIELD.findall(chosen.instructions))
    if sorted(FIELD.findall(text)) != fields:
        needed = " and ".join(f"{{{name}}}" for name in fields) or "none of {question}, {passages}"
        raise UserError(f"rollout.instructions: those of protocol {name!r} hold {needed}, once")
    try:
        datetime.fromisoformat(date)
    except ValueError:
        raise UserError(f"rollout.date: {date!r} is no date; give YYYY-MM-DD") from None
    filled = text.replace("{date}", date).replace("{open}", (chosen.open or "") if opens else "")
    return replace(chosen, instructions=filled, date=date)
