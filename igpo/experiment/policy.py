"""A policy folder: a Hugging Face model folder with `policy.json`, loaded, checked and written."""

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pipeline import cost, storage
from pipeline.devices import device
from pipeline.errors import UserError, one_line
from pipeline.log import log
from retrieval.encoder.folder import UNREADABLE

# The optimiser's, beside the weights; vLLM takes every *.safetensors of a folder for weights.
STATE = "training_state.st"


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder. Raises UserError when there is none."""
    from transformers import AutoTokenizer

    check_folder(folder)
    try:
        return AutoTokenizer.from_pretrained(folder)
    except UNREADABLE as error:
        raise UserError(f"{folder}: no usable tokenizer: {one_line(error, 300)}") from None


def read_model(where: Path | str, **options: Any) -> Any:
    """The causal language model of a folder or cached id, as transformers reads it.

    Raises one of UNREADABLE; ValueError for a missing weight or one of another shape, which would be random,
    and for one without a place, which would be left out. Its configuration says whether head and embeddings
    are one, as other programs go by that.
    """
    from transformers import AutoModelForCausalLM

    result: Any = AutoModelForCausalLM.from_pretrained(
        where, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    model, info = result
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ValueError("it holds an adapter (adapter_config.json): merge that into its model first")
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"not a whole causal language model: {missing[0]} is not among its weights")
    for name, file_shape, config_shape in sorted(info["mismatched_keys"]):
        raise ValueError(
            f"weight {name} has shape {tuple(file_shape)}, but by config.json {tuple(config_shape)}"
        )
    parts, more = [name for name, _ in model.named_children()], sorted(info["unexpected_keys"])
    for name in more:
        if name.partition(".")[0] in parts or "lora_" in name:
            raise ValueError(f"weight {name} has no place in the model that config.json describes")
    if more:
        log.warning("%s: %d weights of no language model are left out, such as %s", where, len(more), more[0])
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    model.config.tie_word_embeddings = head is not None and head.weight is embeddings.weight
    return model


def load(folder: Path, dtype: torch.dtype, attention: str) -> Any:
    """The causal language model of a folder, on the GPU if there is one.

    Raises UserError when the folder isn't a model folder, or its weights are broken, missing or NaN.
    """
    check_folder(folder)
    try:
        model = read_model(folder, dtype=dtype, attn_implementation=attention)
    except UNREADABLE as error:
        raise UserError(f"{folder}: not loadable: {one_line(error, 300)}") from None
    check_finite(model.named_parameters(), folder)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    log.info("loaded %s on %s", folder, device())
    cost.note(device=device())
    return model


def check_finite(weights: Iterable[tuple[str, torch.Tensor]], where: Path) -> None:
    """Raise UserError if one of the named weights, which `where` holds, has NaN or infinity.

    Integers and floats of 8 bits are taken as they are: torch can't compare these.
    """
    for name, weight in weights:
        # not the sum, which overflows in float16
        is_comparable = weight.is_floating_point() and weight.element_size() > 1 and weight.numel()
        if is_comparable and not torch.stack(torch.aminmax(weight)).isfinite().all():
            raise UserError(f"{where}: weight {name} holds NaN or infinity; make it again or choose another")


def check_weights(folder: Path) -> None:
    """The same for the weight files of a folder, for a program that loads them unchecked.

    Raises SafetensorError if a file is broken.
    """
    for path in sorted(folder.glob("*.safetensors")):
        check_finite(load_file(path).items(), path)


def check_folder(folder: Path) -> None:
    """Raise UserError unless `folder` holds a model's configuration and weights, and no adapter to them."""
    if (folder / "policy.json").is_file() and not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{folder}: its weights were not kept; run.keep_policies says whose are: make it again"
        )
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder}: not a model folder (needs config.json, *.safetensors and a tokenizer)")
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder}: holds an adapter (adapter_config.json): merge it into its model first")


def context(folder: Path) -> int:
    """How many tokens the model of a folder can read. Raises UserError if its config.json is broken."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder).max_position_embeddings
    except UNREADABLE as error:
        raise UserError(f"{folder}: no usable config.json: {one_line(error, 300)}") from None


def weights_sha256(folder: Path) -> str:
    """SHA-256 that names the weights of a model folder: its `policy.json`'s, or computed."""
    check_folder(folder)
    manifest = folder / "policy.json"
    if manifest.exists():
        content = storage.read_json(manifest)
        if isinstance(content, dict) and "weights_sha256" in content:
            return content["weights_sha256"]
    return combined_sha256(folder)


def combined_sha256(folder: Path) -> str:
    """SHA-256 over the weight files of a folder."""
    return files_sha256(sorted(folder.glob("*.safetensors")))


def files_sha256(paths: Iterable[Path]) -> str:
    """SHA-256 over files: of the only one, or of the list of their hashes."""
    hashes = list(map(storage.sha256, paths))
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def begin(folder: Path) -> None:
    """Let a policy folder count as unfinished, before any file of it is replaced."""
    (folder / "policy.json").unlink(missing_ok=True)


def forget_sampling(model: Any) -> None:
    """Keep of settings that contradict each other, which can't be written, the tokens that end a text.

    Nothing here samples by a model's own settings.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    try:
        own.validate(strict=True)
    except ValueError as error:
        log.warning("generation_config.json: only the tokens are kept: %s", one_line(error, 300))
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        model.generation_config = GenerationConfig(**{name: getattr(own, name) for name in names})


def save(model: Any, tokenizer: Any, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a policy folder: weights in the model's dtype first, in one file, `policy.json` last.

    The manifest names the model's files and has hashes of the weights and of the others, so that it changes
    with each of them. Files that other stages put into the folder stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    begin(folder)
    forget_sampling(model)
    os.umask(umask := os.umask(0))
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
        model.save_pretrained(temporary, max_shard_size=sys.maxsize)
        tokenizer.save_pretrained(temporary)
        files = sorted(path.name for path in Path(temporary).iterdir())
        for old_file in folder.glob("*.safetensors"):  # of weights in several files, as they once were
            old_file.unlink()
        for path in sorted(Path(temporary).iterdir(), key=lambda path: path.name == "config.json"):
            path.chmod(0o666 & ~umask)  # weights come readable by their owner alone
            path.replace(folder / path.name)
    others = [folder / name for name in files if not name.endswith(".safetensors")]
    contents = {
        "files": files,
        "weights_sha256": combined_sha256(folder),
        "others_sha256": files_sha256(others),
    }
    storage.write_json({**manifest, **contents}, folder / "policy.json")
