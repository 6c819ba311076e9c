"""A finished run in one archive, or its questions in forms that others read.

    igpo export --out run.tar.gz               tables, report, figures, parameters, locks, manifests
    igpo export --questions --out questions/   each split as parquet and as JSON lines (FlashRAG's form)

That is enough to rerun it. Equal files give an equal archive. It holds SHA256SUMS of all its files; its own
SHA-256 is printed.
"""

import argparse
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from igpo.experiment import checks, schema
from pipeline import stage, storage
from pipeline.errors import UserError

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements/cpu.txt", "requirements/gpu.txt", "requirements/torch-cpu.txt", "environment.yml")
RESULTS = (
    *("tables/*", "figures/*", "report.html", "coverage.json", "**/README.md"),
    *(f"**/{name}.json" for name in ("policy", "manifest", "metrics", "health")),
)


def run_files(root: Path, params: str) -> Iterator[tuple[str, bytes]]:
    """(name in the archive, bytes) of all that a run is told by."""
    yield "params.yaml", params.encode()
    for name in LOCKS:
        yield name, (ROOT / name).read_bytes()
    paths = {path for pattern in RESULTS for path in (root / "results").glob(pattern) if path.is_file()}
    for path in sorted(paths):
        yield path.relative_to(root).as_posix(), path.read_bytes()


def archive(files: dict[str, bytes]) -> bytes:
    """A compressed tar of files, the same for the same files."""
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    out = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as file,
        tarfile.open(fileobj=file, mode="w") as tar,
    ):
        for name, data in sorted({**files, "SHA256SUMS": sums.encode()}.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def flashrag(row: dict) -> dict:
    """A question in FlashRAG's form; what it has no place for is metadata."""
    own = ("question_id", "question", "answers")
    rest = {name: value for name, value in row.items() if name not in own}
    return {
        "id": row["question_id"],
        "question": row["question"],
        "golden_answers": row["answers"],
        "data_source": row["benchmark"],
        "metadata": rest,
    }


def write_questions(root: Path, out: Path) -> int:
    """Write every split in both forms; returns the number of questions."""
    number = 0
    for split in schema.SPLITS:
        path = root / f"results/questions/{split}.parquet"
        rows = storage.read(path, schema.QUESTIONS).to_pylist()
        lines = "".join(json.dumps(flashrag(row), ensure_ascii=False) + "\n" for row in rows)
        with storage.replacing(out / f"{split}.jsonl") as temporary:
            temporary.write_text(lines)
        with storage.replacing(out / f"{split}.parquet") as temporary:
            temporary.write_bytes(path.read_bytes())
        number += len(rows)
    return number


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    checks.arguments(parser)
    parser.add_argument("--root", type=Path, default=Path(), metavar="DIR", help="folder that holds results/")
    parser.add_argument("--questions", action="store_true", help="the questions, into the folder --out")
    parser.add_argument("--out", type=Path, required=True, metavar="PATH")


def run(args: argparse.Namespace) -> str:
    """Write the archive or the questions."""
    if args.questions:
        print(f"{write_questions(args.root, args.out)} questions -> {args.out}")
        return ""
    params = yaml.safe_dump(json.loads(json.dumps(checks.read(args))), sort_keys=False)
    files = dict(run_files(args.root, params))
    if "results/tables/main.md" not in files:
        raise UserError(f"{args.root / 'results/tables/main.md'}: no such file; finish the run first")
    data = archive(files)
    with storage.replacing(args.out) as temporary:
        temporary.write_bytes(data)
    print(f"{hashlib.sha256(data).hexdigest()}  {args.out}")
    return ""


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
