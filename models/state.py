"""The state that models pass from call to call: its tensors, and how it is saved to a file."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

DIGEST = "digest"  # in the metadata of a file


def leaves(state: Any) -> list[Tensor]:
    """The tensors of a state, in a fixed order."""
    return list(named_leaves(state).values())


def named_leaves(state: Any, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a state by name, such as `layers.0.memory`."""
    if state is None:
        return {}
    if isinstance(state, Tensor):
        return {prefix: state}
    names = getattr(state, "_fields", range(len(state)))
    return {
        full: leaf
        for name, part in zip(names, state)
        for full, leaf in named_leaves(part, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def rebuild(template: Any, tensors: Iterator[Tensor]) -> Any:
    """A state with the structure of `template` and these tensors, in the order of `leaves`."""
    if template is None:
        return None
    if isinstance(template, Tensor):
        return next(tensors)
    parts = [rebuild(part, tensors) for part in template]
    return type(template)(*parts) if hasattr(template, "_fields") else type(template)(parts)


def for_rows(state: Any, rows: int) -> Any:
    """Expand the state of one sequence to `rows` sequences that share it."""
    return rebuild(state, iter([leaf.expand(rows, *leaf.shape[1:]) if leaf.ndim else leaf for leaf in leaves(state)]))


def detach(state: Any) -> Any:
    """The state, detached from the autograd graph."""
    return rebuild(state, iter([leaf.detach() for leaf in leaves(state)]))


def save_tensors(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Replace `file` atomically by these tensors in safetensors format, with their digest. Raises OSError."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    tensors, metadata = {name: tensor.contiguous() for name, tensor in tensors.items()}, metadata or {}
    try:
        save_file(tensors, temporary, metadata | {DIGEST: digest_of(tensors, metadata)})
        with open(temporary, "rb") as saved:
            os.fsync(saved.fileno())
        os.replace(temporary, file)
    except SafetensorError as error:  # raised for a full disk
        raise OSError(f"cannot write {file}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata that `save_tensors` saved. Raises ValueError, with a message of one line, if the
    file is damaged, and FileNotFoundError."""
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118, not a dict
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    digest = metadata.pop(DIGEST, None)
    if digest != digest_of(tensors, metadata):
        raise ValueError("its content does not match its digest" if digest else "it has no digest")
    return tensors, metadata


def digest_of(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """The SHA-256 of tensors and metadata, in hexadecimal."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_state(file: Path, state: Any) -> None:
    """Save a state, so that `load_state` can continue the stream."""
    tensors = {name: leaf.detach().clone() for name, leaf in named_leaves(state).items()}
    save_tensors(file, tensors, {"kind": kind(state)})


def load_state(file: Path, model: Any, batch: int) -> Any:
    """The state of `batch` sequences that `save_state` saved for a model like this one.

    Raises ValueError, with a message of one line, if the file is damaged or the state does not fit: another kind of
    model, number of layers, batch size or dtype.
    """
    template = model.initial_state(batch)
    expected = named_leaves(template)
    try:
        found, metadata = read_tensors(file)
    except (ValueError, OSError) as error:
        raise ValueError(f"cannot read a state from {file}: {error}") from error
    saved = metadata.get("kind")
    if saved != kind(template):
        raise ValueError(f"{file} contains {saved or 'no known state'}, but this model needs {kind(template)}")
    problem = mismatch(found, expected, batch)
    if problem:
        raise ValueError(f"the state in {file} does not fit this model: {problem}")
    return rebuild(template, iter([found[name].to(leaf.device) for name, leaf in expected.items()]))


def kind(state: Any) -> str:
    """The types in a state, such as `DecoderState of InfiniState`."""
    return " of ".join(dict.fromkeys(types_in(state)))


def types_in(state: Any) -> Iterator[str]:
    """The names of the NamedTuples in a state, outermost first."""
    if isinstance(state, tuple):
        if hasattr(state, "_fields"):
            yield type(state).__name__
        for part in state:
            yield from types_in(part)


def mismatch(found: dict[str, Tensor], expected: dict[str, Tensor], batch: int) -> str | None:
    """The first difference of a state from the model's initial state, apart from token counts; None if they match."""
    layers = [len({name.split(".")[1] for name in names if name.startswith("layers.")}) for names in (found, expected)]
    if layers[0] != layers[1]:
        return f"it has {layers[0]} layers, not {layers[1]}"
    if found.keys() != expected.keys():
        return f"only one of them has {', '.join(sorted(found.keys() ^ expected.keys()))}"
    for name, leaf in found.items():
        own = expected[name]
        if leaf.ndim != own.ndim:
            return f"{name} has {leaf.ndim} dimensions, not {own.ndim}"
        if leaf.ndim and leaf.shape[0] != own.shape[0]:
            return f"it has {leaf.shape[0]} sequences, not {batch}"
        if any(mine not in (0, size) for size, mine in zip(leaf.shape, own.shape)):  # 0: grows with the tokens
            return f"{name} has shape {tuple(leaf.shape)}, which cannot grow from {tuple(own.shape)}"
        if leaf.dtype not in allowed_dtypes(own):
            return f"{name} has dtype {leaf.dtype}, not {own.dtype}"
    return None


def allowed_dtypes(own: Tensor) -> set[torch.dtype]:
    """The dtypes that a tensor of a state may have: its initial one and, under autocast, that of autocast."""
    kind = own.device.type
    return {own.dtype} | ({torch.get_autocast_dtype(kind)} if torch.is_autocast_enabled(kind) else set())
