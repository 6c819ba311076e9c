"""A change runs again what it can change, and nothing else."""

import pytest
from root import ROOT

from igpo import protocols
from pipeline.digest import code, files

UNRELATED = (
    "retrieval/sources/forms.py",
    "retrieval/sources/wikipedia.py",
    "retrieval/server/wire.py",
    "retrieval/serve.py",
    "igpo/report.py",
    "igpo/figures.py",
    "igpo/plan.py",
    "igpo/protocols/react.py",
)


@pytest.mark.parametrize("stage", ["warmup", "rollout", "score", "advantage", "train"])
def test_readers_server_reports_and_other_protocols_run_nothing_of_the_loop_again(stage):
    names = [path.relative_to(ROOT).as_posix() for path in files((f"igpo.{stage}", protocols.module("igpo")))]
    assert f"igpo/{stage}.py" in names
    assert not set(UNRELATED) & set(names)
    assert all((ROOT / name).exists() for name in UNRELATED)


def test_a_protocol_is_in_the_digest_of_what_acts_in_it():
    digests = {
        code("igpo.rollout", protocols.module(name)) for name in ("igpo", "react", "rag", "closed_book")
    }
    assert len(digests) == 3  # the last two share a module


def test_a_module_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match=r"no module igpo\.nothing"):
        code("igpo.nothing")
