"""The protocols by name. `rollout.protocol` chooses one, the rollouts' metadata remember it."""

import importlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from igpo.protocols.protocol import FIELD, TOOLS, Protocol
from pipeline.errors import UserError
from pipeline.settings import nearest

# The module of each protocol. It is imported when its protocol is asked for, so that what is made with one
# protocol does not hang on the others.
MODULES = {
    name: name for name in ("igpo", "deepresearcher", "search_r1", "r1_searcher", "react", "search_o1")
}
MODULES |= dict.fromkeys(("closed_book", "closed_book_cot", "rag", "rag_cot"), "few_shot")


def module(name: str) -> str:
    """The module that has a protocol. Raises UserError with the nearest name for an unknown one."""
    if name not in MODULES:
        raise UserError(f"unknown protocol {name!r}; nearest: {nearest(name, MODULES)!r}")
    return f"igpo.protocols.{MODULES[name]}"


def find(name: str) -> Protocol:
    """The protocol of a name. Raises UserError with the nearest name for an unknown one."""
    return importlib.import_module(module(name)).PROTOCOLS[name]


def prepare(
    name: str,
    tools: Sequence[str] = TOOLS[:1],
    instructions: str | None = None,
    date: str = Protocol.date,
) -> Protocol:
    """The protocol of a name for `tools` and `date`, with other `instructions` if they are given.

    Raises UserError for a tool that it has no form for, for instructions without its fields, and for no date.
    """
    protocol = find(name)
    opens = "open" in tools
    if opens and protocol.observation and protocol.open is None:
        raise UserError(f"rollout.tools: protocol {name!r} has no 'open'; give [web_search]")
    text = instructions or protocol.instructions
    fields = sorted(FIELD.findall(protocol.instructions))
    if sorted(FIELD.findall(text)) != fields:
        field_names = " and ".join(f"{{{name}}}" for name in fields) or "none of {question}, {passages}"
        raise UserError(f"rollout.instructions: those of protocol {name!r} hold {field_names}, once")
    try:
        datetime.fromisoformat(date)
    except ValueError:
        raise UserError(f"rollout.date: {date!r} is no date; give YYYY-MM-DD") from None
    wording = text.replace("{date}", date).replace("{open}", (protocol.open or "") if opens else "")
    return replace(protocol, instructions=wording, date=date)
