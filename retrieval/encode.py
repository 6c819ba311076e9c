"""corpus.parquet -> vectors of one shard of its passages, for `retrieval index --kind dense --vectors`.

Thus several GPUs or machines encode one corpus side by side. Passages go in parts of fixed rows; a finished
part is a file, so that a killed run goes on where it was. A shard holds whole parts: the vectors don't depend
on the number of shards.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import sections, stage, storage
from pipeline.errors import UserError
from retrieval.encoder.encoder import open_encoder
from retrieval.encoder.folder import encoder_folder, fingerprint
from retrieval.indexes.factory import blank_index
from retrieval.indexes.manifest import chosen, digest
from retrieval.indexes.vectors import corpus_texts, encode_parts, shard_rows, vectors_key
from retrieval.indexes.workplace import finish, place, workplace


def arguments(parser: ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--corpus", type=Path, required=True, metavar="FILE", help="corpus.parquet")
    parser.add_argument("--shard", type=int, required=True, metavar="N", help="1 to index.shards")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="this shard's vectors")


def run(args: Namespace, params: sections.Index) -> str:
    """Encode one shard."""
    if not 1 <= args.shard <= params.shards:
        raise UserError(f"--shard {args.shard}: expected 1 to {params.shards} (index.shards)")
    if not args.corpus.is_file():
        raise UserError(f"{args.corpus}: no such file")
    out, settings = place(args.out, "vectors.json", args.corpus), chosen("dense", params)
    encoder_hash = fingerprint(encoder_folder(params.encoder))
    key = vectors_key(storage.sha256(args.corpus), settings, encoder_hash)
    try:
        total = pq.read_metadata(args.corpus).num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{args.corpus}: not a readable parquet table: {error}") from None
    encoder = open_encoder(settings)
    blank_index(params.faiss, encoder.dimension, total)  # can it be built?
    rows = shard_rows(total, args.shard, params.shards)
    with workplace(out, digest([key, rows.start, rows.stop])) as work:
        folder = work / "made"
        encode_parts(corpus_texts(args.corpus, rows), rows, encoder, params.batch, folder)
        storage.write_json({"key": key, "first": rows.start, "last": rows.stop}, folder / "vectors.json")
        finish(work, out)
    return f"{len(rows)} passages, rows {rows.start} to {rows.stop}"


main = stage.command(sections.Index, arguments, run, __doc__)

if __name__ == "__main__":
    main()
