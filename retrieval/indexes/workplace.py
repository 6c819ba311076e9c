"""The folder in which an index is built; a killed build goes on there."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import storage
from pipeline.errors import UserError

# What an index folder holds beside its manifest, which Snakemake removes before the folder is made again.
PARTS = {"passages.arrow", "order.npy", "lucene", "dense.faiss", "index.cost.json"}


def place(out: Path, manifest: str, corpus: Path) -> Path:
    """Where `out` leads; UserError if what is there is no folder of ours to replace.

    Ours is a folder with `manifest`, or with parts of an index alone.
    """
    real = out.resolve()
    if corpus.resolve().is_relative_to(real):
        raise UserError(f"--out {out}: the corpus itself is in this folder; give another --out")
    if real.exists() and not real.is_dir():
        raise UserError(f"--out {out}: a file is there; give another --out")
    if real.is_dir() and not (real / manifest).is_file() and {path.name for path in real.iterdir()} - PARTS:
        raise UserError(f"--out {out}: a folder with other files is there; give another --out")
    return real


@contextmanager
def workplace(out: Path, key: str) -> Iterator[Path]:
    """The folder of an unfinished build of `out`; emptied unless it was begun with the same `key`.

    Raises UserError if another process builds there.
    """
    work = out.parent / f".{out.name}.partial"
    work.mkdir(parents=True, exist_ok=True)
    with (work / "key").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{out}: another process is building it; wait for its end") from None
        file.seek(0)
        if file.read() != key:
            for name in ("made", "vectors"):
                shutil.rmtree(work / name, ignore_errors=True)
            file.truncate(0)
            file.write(key)
            file.flush()
        yield work


def finish(work: Path, out: Path) -> None:
    """Move `work`/made to `out`, then remove the rest of `work`, from which a killed build would go on."""
    storage.take_place(work / "made", out)
    shutil.rmtree(work)
