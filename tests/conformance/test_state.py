"""The state of a stream in a file: cut anywhere, it goes on as if it had not been, and nothing else takes it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support import PAIRS, choices, decoder
from torch import Tensor

from experiments.conformance.contracts import assert_close
from experiments.conformance.tiny import SEGMENT, random_tokens
from models.state import leaves, load_state, save_state

every_attention = pytest.mark.parametrize("attention", choices("attention"))
every_pair = pytest.mark.parametrize(("attention", "position"), PAIRS)


def cut(model: Any, folder: Path, tokens: Tensor) -> Path:
    """The state of a stream after these tokens, in a file."""
    _, state = model(tokens)
    save_state(folder / "state.safetensors", state)
    return folder / "state.safetensors"


@pytest.mark.slow
@every_pair
@pytest.mark.parametrize("length", [1, SEGMENT, 3 * SEGMENT + 1])
def test_a_stream_that_is_cut_goes_on_from_its_file(attention: str, position: str, length: int, tmp_path: Path) -> None:
    tokens = random_tokens(2, length + SEGMENT + 2)
    whole, whole_state = decoder(attention, position)(tokens)
    file = cut(decoder(attention, position), tmp_path, tokens[:, :length])
    another = decoder(attention, position)
    logits, state = another(tokens[:, length:], load_state(file, another, 2))
    assert_close(logits, whole[:, length:])
    for leaf, expected in zip(leaves(state), leaves(whole_state), strict=True):
        assert_close(leaf, expected)


@pytest.mark.slow
@every_attention
def test_a_state_that_does_not_fit_is_refused_in_one_line(attention: str, tmp_path: Path) -> None:
    model = decoder(attention)
    file = cut(model, tmp_path, random_tokens(2, 2 * SEGMENT + 1))
    for other, batch, message in [
        (decoder(attention, layers=3), 2, "it has 2 layers, not 3"),
        (model, 3, "it has 2 sequences, not 3"),
        (decoder(attention).float(), 2, "has dtype torch.float64, not torch.float32"),
        (decoder(attention, "none", "model.width=32"), 2, "has shape"),
        (decoder("window" if attention == "full" else "full"), 2, r"but this model needs \w+State of"),
    ]:
        with pytest.raises(ValueError, match=message) as caught:
            load_state(file, other, batch)
        assert "\n" not in str(caught.value)


def test_a_file_that_is_damaged_or_missing_is_told_in_one_line(tmp_path: Path) -> None:
    model, file = decoder("full"), tmp_path / "state.safetensors"
    for contents in (None, b"", b"not a state"):
        if contents is not None:
            file.write_bytes(contents)
        with pytest.raises(ValueError, match="cannot read a state from") as caught:
            load_state(file, model, 2)
        assert "\n" not in str(caught.value)


@every_attention
def test_a_state_of_autocast_goes_on_under_autocast(attention: str, tmp_path: Path) -> None:
    model, tokens = decoder(attention).float(), random_tokens(2, 3 * SEGMENT)
    with torch.autocast("cpu", torch.bfloat16):
        file = cut(model, tmp_path, tokens[:, :7])
        _, state = model(tokens[:, :7])
        loaded = load_state(file, model, 2)
        assert torch.equal(model(tokens, loaded)[0], model(tokens, state)[0])
