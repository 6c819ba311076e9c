"""A corpus of a few passages with real indexes over it, built once per test run."""

import contextlib
import io
import json
from functools import cache
from pathlib import Path

import pytest
from root import PARAMS_FILE

from pipeline.settings import read_params

PARAMS = PARAMS_FILE


def section_of(name: str, **over: object) -> dict:
    """A section of params.yaml with some values replaced."""
    return read_params([PARAMS])[name] | over


SETTINGS = section_of("index", max_tokens=64, batch=4)
ROWS = [
    (
        "melville",
        "Herman Melville",
        "American writer (1819–1891). Herman Melville wrote Moby-Dick and Typee.",
    ),
    (
        "moby",
        "Moby-Dick",
        "1851 novel by Herman Melville. A sailor tells of Ahab, captain of a whaling ship.",
    ),
    ("ouaga", "Ouagadougou", "Capital of Burkina Faso. Ouagadougou is the largest city of its country."),
    ("bamako", "Bamako", "Capital of Mali. Bamako lies on the Niger River."),
    ("neon", "Neon", "Chemical element with symbol Ne and atomic number 10. It is a noble gas."),
    ("argon", "Argon", "Chemical element with symbol Ar and atomic number 18. It is a noble gas."),
    ("strauß/1", "Johann Strauß", "Austrian composer (1825–1899). He wrote The Blue Danube, a waltz."),
    ("tokyo🗼", "東京", "Capital of Japan. Tokyo 🗼 is the seat of the Emperor."),
    ("twin-b", "Twin peak", "The same mountain twice in one atlas."),
    ("twin-a", "Twin peak", "The same mountain twice in one atlas."),
    ("twin-c", "Twin peak", "The same mountain twice in one atlas."),
    ("whale", "Whale", "Large sea mammal. Whales were hunted by whaling ships for oil."),
]


def call(main, *argv: object) -> str:
    """Run a stage in this process; returns what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        main([str(word) for word in argv])
    return printed.getvalue()


def refusal(capsys, main, *argv: object) -> str:
    """Run a stage that must end with exit code 2 and one line on stderr; returns that line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in argv])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert end.value.code == 2
    assert len(errors) == 1
    return errors[0]


def config(**settings: object) -> tuple[str, str]:
    """The options that give an index stage these settings."""
    return "--config", json.dumps({**SETTINGS, **settings})


def write_corpus(folder: Path, rows=ROWS, name: str = "corpus") -> Path:
    """The rows as a corpus table, made by the real stage."""
    from retrieval import corpus

    source = folder / f"{name}.jsonl"
    lines = [json.dumps(dict(zip(("id", "title", "text"), row, strict=True))) + "\n" for row in rows]
    source.write_text("".join(lines))
    out = folder / f"{name}.parquet"
    call(corpus.main, "--config", '{"source": "vital"}', "--source", source, "--out", out)
    return out


def build(corpus: Path, kind: str, out: Path, **settings: object) -> Path:
    """One index, made by the real stage."""
    from retrieval import index

    call(index.main, *config(**settings), "--corpus", corpus, "--kind", kind, "--out", out)
    return out


def indexes(factory) -> tuple[Path, Path, Path]:
    """Corpus table, BM25 folder, dense folder; `factory` is pytest's tmp_path_factory."""
    return indexes_in(factory.getbasetemp() / "indexes")


@cache
def indexes_in(folder: Path) -> tuple[Path, Path, Path]:
    """The same in `folder`."""
    folder.mkdir()
    corpus = write_corpus(folder)
    return corpus, build(corpus, "bm25", folder / "bm25"), build(corpus, "dense", folder / "dense")


def paged_index(factory) -> Path:
    """A BM25 folder over a corpus whose page Ark has three passages."""
    folder = factory.mktemp("paged")
    texts = [
        ("a0", "Ark", "zero flood"),
        ("a1", "Ark", "one dove"),
        ("a2", "Ark", "two olive"),
        ("b", "Bow", "flood"),
    ]
    return build(write_corpus(folder, texts), "bm25", folder / "bm25")


QUESTIONS = ["When did Herman Melville die?", "capital of Burkina Faso", "noble gas with atomic number 18"]


def nothing_is_encoded(*_):
    raise AssertionError("encoded again")
