"""Models from outside are loaded whole, and without the settings that they bring."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig

from models.external import find
from tests.test_evaluate import folders

__all__ = ["folders"]

pytestmark = pytest.mark.slow


def test_greedy_means_greedy_whatever_the_model_brings(folders: Path, tmp_path: Path) -> None:
    """Penalties and a minimal length that a model came with are off."""
    shutil.copytree(folders / "llama", tmp_path / "llama")
    settings = GenerationConfig(repetition_penalty=9.0, no_repeat_ngram_size=1, min_length=50, bos_token_id=0)
    settings.save_pretrained(tmp_path / "llama")
    source = torch.arange(4, 20)[None]
    plain, other = (find(str(folder / "llama")).load() for folder in (folders, tmp_path))
    expected = plain.answer(source, 12, end=None)
    assert torch.equal(other.answer(source, 12, end=None), expected)
    assert torch.equal(expected[0, :1], plain.model(source).logits[0, -1:].argmax(-1))


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda name: f"module.{name}", "; its tensors begin with 'module.': save them without"),
        (lambda name: f"_orig_mod.{name}", "; its tensors begin with '_orig_mod.': save them without"),
        (lambda name: name if "layers.1." not in name else "", ""),
        (lambda name: name if "layers.1." not in name else f"other.{name[-9:]}", "; there are others, such as other."),
    ],
    ids=["module", "compiled", "a layer missing", "unrelated"],
)
def test_weights_that_do_not_fit_are_refused(
    change: Callable[[str], str], hint: str, folders: Path, tmp_path: Path
) -> None:
    shutil.copytree(folders / "llama", tmp_path / "llama")
    file = tmp_path / "llama" / "model.safetensors"
    tensors = {change(name): tensor for name, tensor in load_file(file).items()}
    save_file({name: tensor for name, tensor in tensors.items() if name}, file, {"format": "pt"})
    message = r"tensors are missing or of another shape, such as [\w.]+" + re.escape(hint)
    with pytest.raises(ValueError, match=message):
        find(str(tmp_path / "llama")).load()
