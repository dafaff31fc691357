"""The folder of a model that someone else may have made: which of its files are read, and what they may not ask for.

Only weights in safetensors, settings in JSON and vocabularies are read. Nothing in them chooses code to run.
"""

import hashlib
import inspect
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
SETTINGS = ("*.json", "*.model", "*.txt", "*.spm", "*.tiktoken", "*.bpe", "*.codes")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")
SHARDS = "shard-*-model-*-of-*.safetensors"  # of torch's distributed checkpoints, whose metadata is a pickle
UNSUPPORTED = {  # settings of config.json, at any depth, and what to do about them
    "quantization_config": "pass the model that was quantized, or save it dequantized",
    "compression_config": "pass the model that was compressed, or save it decompressed",
    "fusion_config": "remove it, which changes no numbers",
    "transformers_weights": "remove it, and save the weights as model.safetensors",
}


def find_folder(name: str) -> Path:
    """The folder of a model, given by its path or by a hub id; of a hub model, all files but its weights are loaded.

    Raises ValueError, with a message of one line, if it is missing or incomplete, or asks for something that is not
    done here, such as code of its own.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if folder.exists() or name.count("/") != 1 or name.startswith((".", "~", "/")):
            raise ValueError(f"model={name} does not exist; pass a folder saved by save_pretrained, or a hub id")
        with reading(name, "files"):
            folder = Path(snapshot_download(name, allow_patterns=[*SETTINGS], ignore_patterns=["*/*"]))
    elif not (folder / "config.json").exists():
        raise ValueError(f"model={name} contains no config.json: pass a folder saved by save_pretrained, or a hub id")
    else:
        check_weights(name, folder)
    if not any((folder / file).exists() for file in TOKENIZERS):
        raise ValueError(
            f"model={name} contains no tokenizer: add the model's own by AutoTokenizer.from_pretrained(…)"
            f".save_pretrained('{name}'); for a run of this program, python -m models.pretrained saves it too"
        )
    check_settings(name, folder)
    return folder


def load_weights(name: str, folder: Path) -> None:
    """Load the weights of a hub model into the folder that `find_folder` returned. Raises ValueError."""
    if not Path(name).expanduser().is_dir():
        with reading(name, "weights"):
            snapshot_download(name, revision=folder.name, allow_patterns=[*WEIGHTS])
        check_weights(name, folder)


def check_weights(name: str, folder: Path) -> None:
    """Raise ValueError unless the weights are in safetensors, each file in the folder itself."""
    if any(folder.glob(SHARDS)):
        raise ValueError(f"model={name} is a distributed checkpoint: load it as it was saved, and save_pretrained it")
    if (folder / WEIGHTS[0]).exists():
        return
    index = folder / WEIGHTS[1]
    if not index.exists():
        hint = "; other formats can run code and are not read" if any(folder.glob("*.bin")) else ""
        raise ValueError(
            f"model={name} contains no weights in model.safetensors{hint}: pass a folder saved by save_pretrained, or "
            "a hub id"
        )
    with reading(name, index.name):
        files = {*settings_of(index)["weight_map"].values()}
        wrong = sorted(file for file in files if Path(file).name != file or Path(file).suffix != ".safetensors")
        if wrong:
            raise ValueError(f"{wrong[0]} is not the name of a safetensors file in the folder")


def check_settings(name: str, folder: Path) -> None:
    """Raise ValueError for settings that choose code, change the weights, or are damaged."""
    if (folder / "adapter_config.json").exists():
        raise ValueError(f"model={name} has an adapter: save the whole model by merge_and_unload().save_pretrained(…)")
    found = {}
    for file in ("config.json", "tokenizer_config.json", "generation_config.json"):
        with reading(name, file):
            found[file] = settings_of(folder / file) if (folder / file).exists() else {}
    for key, value in entries(found["config.json"]):
        if key in UNSUPPORTED and value:
            raise ValueError(f"model={name} has a {key} in its config.json, which is not supported: {UNSUPPORTED[key]}")
    tokenizer = found["tokenizer_config.json"]
    named = tokenizer.get("tokenizer_class") or found["config.json"].get("tokenizer_class")
    with reading(name, "tokenizer"):
        if "auto_map" in tokenizer:
            raise ValueError("its auto_map names code of its own, which is never run here")
        if named is not None and not is_tokenizer(tokenizer_class_from_name(str(named))):
            raise ValueError(f"{named} is no tokenizer of transformers, and other code is never run here")


def is_tokenizer(found: Any) -> bool:
    """Whether something is a class of tokenizers."""
    return inspect.isclass(found) and issubclass(found, PreTrainedTokenizerBase)


def settings_of(file: Path) -> dict[str, Any]:
    """The settings in a JSON file. Raises ValueError."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(settings, dict):
        raise ValueError(f"it holds {type(settings).__name__}, not settings by name")
    return settings


def entries(node: Any) -> Iterator[tuple[str, Any]]:
    """The keys and values of nested settings, at every depth."""
    if isinstance(node, dict):
        yield from node.items()
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from entries(part)


def fingerprint_of(name: str, folder: Path) -> str:
    """The SHA-256 of the names and contents of all files that are read; for a model of the hub, its commit."""
    if not Path(name).expanduser().is_dir():
        return f"{name}@{folder.name}"
    digest = hashlib.sha256()
    for file in sorted({file for pattern in ("*.safetensors", *SETTINGS) for file in folder.glob(pattern)}):
        with open(file, "rb") as opened:
            digest.update(file.name.encode() + hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]


@contextmanager
def reading(name: str, what: str) -> Iterator[None]:
    """Raise any error as a ValueError with a message of one line: libraries raise many types for damaged files."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "trust_remote_code" in reason:
            reason = "it needs its own code, which is never run here"
        elif not Path(name).expanduser().is_dir() and os.environ.get("HF_HUB_OFFLINE") == "1":
            reason = "there is no such folder, and this run is offline: set HF_HUB_OFFLINE=0 to load it from the hub"
        raise ValueError(f"model={name}: cannot read its {what}: {reason[:300]}") from error
