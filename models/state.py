"""What models carry from call to call, as a value: its tensors in order, and in a file."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def leaves(state: Any) -> list[Tensor]:
    """The tensors of a carried state, in a fixed order."""
    return list(named_leaves(state).values())


def named_leaves(state: Any, prefix: str = "") -> dict[str, Tensor]:
    """The same by name: `layers.0.memory`."""
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
    """A state built like `template` from the tensors that `leaves` gave."""
    if template is None:
        return None
    if isinstance(template, Tensor):
        return next(tensors)
    parts = [rebuild(part, tensors) for part in template]
    return type(template)(*parts) if hasattr(template, "_fields") else type(template)(parts)


def for_rows(state: Any, rows: int) -> Any:
    """The state of one sequence, as the state of so many that have it in common."""
    return rebuild(state, iter([leaf.expand(rows, *leaf.shape[1:]) if leaf.ndim else leaf for leaf in leaves(state)]))


def detach(state: Any) -> Any:
    """The same state without its history of gradients."""
    return rebuild(state, iter([leaf.detach() for leaf in leaves(state)]))


def save_tensors(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Replace `file` by these tensors in safetensors' format, whole or not at all. Raises OSError."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, file)
    except SafetensorError as error:  # its way to report a full disk
        raise OSError(f"cannot write {file}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def save_state(file: Path, state: Any) -> None:
    """Keep the state of a stream that is cut here; `load_state` goes on from it."""
    tensors = {name: leaf.detach().clone() for name, leaf in named_leaves(state).items()}
    save_tensors(file, tensors, {"kind": kind(state)})


def load_state(file: Path, model: Any, batch: int) -> Any:
    """The state of `batch` sequences that `save_state` kept for a model like this one.

    Raises ValueError, in one line, for a file that is damaged and for the state of another model, number of layers,
    batch or type.
    """
    template = model.initial_state(batch)
    expected = named_leaves(template)
    try:
        with safe_open(file, framework="pt") as stored:
            found = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118, not a dict
            kept = (stored.metadata() or {}).get("kind")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"cannot read a state from {file}: {' '.join(str(error).split())}") from error
    if kept != kind(template):
        raise ValueError(f"{file} holds no {kind(template)}, which this model carries, but {kept or 'something else'}")
    problem = misfit(found, expected, batch)
    if problem:
        raise ValueError(f"the state in {file} does not fit this model: {problem}")
    return rebuild(template, iter([found[name].to(leaf.device) for name, leaf in expected.items()]))


def kind(state: Any) -> str:
    """What a state is made of: `DecoderState of InfiniState`."""
    return " of ".join(dict.fromkeys(types_in(state)))


def types_in(state: Any) -> Iterator[str]:
    """The names of the NamedTuples in a state, from the outside in."""
    if isinstance(state, tuple):
        if hasattr(state, "_fields"):
            yield type(state).__name__
        for part in state:
            yield from types_in(part)


def misfit(found: dict[str, Tensor], expected: dict[str, Tensor], batch: int) -> str | None:
    """What tells a state apart from a model's own before the first token; None if nothing does."""
    layers = [len({name.split(".")[1] for name in names if name.startswith("layers.")}) for names in (found, expected)]
    if layers[0] != layers[1]:
        return f"it is of {layers[0]} layers, not of {layers[1]}"
    if found.keys() != expected.keys():
        return f"one of them has {', '.join(sorted(found.keys() ^ expected.keys()))}"
    for name, leaf in found.items():
        own = expected[name]
        if leaf.ndim != own.ndim:
            return f"{name} has {leaf.ndim} dimensions, not {own.ndim}"
        if leaf.ndim and leaf.shape[0] != own.shape[0]:
            return f"it is of {leaf.shape[0]} sequences, not of {batch}"
        if any(mine not in (0, size) for size, mine in zip(leaf.shape, own.shape)):  # 0: what grows with the tokens
            return f"{name} is of shape {tuple(leaf.shape)}, which no tokens make of {tuple(own.shape)}"
        if leaf.dtype not in types(own):
            return f"{name} is of type {leaf.dtype}, not {own.dtype}"
    return None


def types(own: Tensor) -> set[torch.dtype]:
    """The types that a part of a state can have: its own, and that of autocast where this is on."""
    kind = own.device.type
    return {own.dtype} | ({torch.get_autocast_dtype(kind)} if torch.is_autocast_enabled(kind) else set())
