"""Beyond the trained length: what is scored, what is refused, what is asked for, and what a run starts from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import decoder
from test_tasks import TEXT, modeling, stream_of
from torch import nn

from tasks.context_extension import ContextExtension, reach
from tasks.data.source import DataError
from tasks.data.text import Document
from tasks.passkey import words
from tasks.scoring import long_documents


@torch.no_grad()
def test_every_window_scores_the_same_tokens_and_long_documents_only(tmp_path: Path) -> None:
    task, model, stream = modeling(tmp_path, multiples=[1, 2]), decoder("full", "rope"), stream_of(5, 16, 33, 15, 40)
    long = long_documents(stream, 16)
    assert [len(document) - 1 for document in np.split(long.tokens, long.starts[1:])] == [16, 33, 40]
    for window, stride in ((8, 8), (16, 16), (16, 4)):
        scored = task.score(model, long, window, stride)
        assert len(scored.losses) == 16 + 33 + 40
        assert scored.positions.max() == window - 1
    with pytest.raises(DataError, match="no document of the split has the 64 tokens"):
        long_documents(stream, 64)


@torch.no_grad()
def test_a_loss_by_place_is_the_mean_over_the_tokens_there(tmp_path: Path) -> None:
    scored = modeling(tmp_path).score(decoder("full", "none"), stream_of(20, 30), 8, 8)
    rows = scored.by_position(bin=4)
    assert [row["position"] for row in rows] == [2, 6]
    assert rows[0]["loss"] == pytest.approx(scored.losses[scored.positions < 4].mean())


@pytest.mark.parametrize(("position", "refuses"), [("learned", True), ("sinusoidal", False), ("alibi", False)])
def test_a_table_that_ends_is_a_result_and_not_an_error(position: str, refuses: bool, tmp_path: Path) -> None:
    task = modeling(tmp_path, multiples=[1, 2], evaluation_tokens=200)
    model = decoder("full", position, "trained_length=8")
    model.embedding = nn.Embedding(300, 16).double()
    found = task.evaluate(model).metrics
    assert found["refused/2x"] == refuses
    assert ("nonoverlapping/2x/degradation" in found) == (not refuses)
    if not refuses:
        expected = found["nonoverlapping/2x/loss"] - found["nonoverlapping/loss"]
        assert found["nonoverlapping/2x/degradation"] == pytest.approx(expected)


def test_the_trained_length_itself_must_be_among_the_windows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="integers of at least 1 and include 1"):
        modeling(tmp_path, multiples=[2, 4])


class LongBooks:
    """A corpus whose documents fill every window asked for here."""

    name, fingerprint = "long books", "fedcba9876543210"

    def documents(self, split: str) -> list[Document]:
        text = TEXT if split == "train" else TEXT.swapcase()
        return [Document(f"{split}/{size}", text * size) for size in (20, 30)]


def extension(cache: Path, factor: int) -> ContextExtension:
    return ContextExtension(
        LongBooks(),
        seed=0,
        trained_length=100,
        extension=factor,
        tokens_per_batch=400,
        vocabulary_size=270,
        evaluation_tokens=200,
        prompts=2,
        cache=str(cache),
    )


def test_text_is_extended_and_passkeys_are_not(tmp_path: Path) -> None:
    task = extension(tmp_path, 2)
    batch = task.batch(0)
    assert batch["tokens"].shape == (2, 200)
    assert batch["prompt"].shape[1] + batch["answer"].shape[1] - 1 == 100
    corpus = task.trained_text.model_arguments["vocabulary_size"]
    assert batch["tokens"].max() < corpus <= batch["prompt"].min()  # two vocabularies that do not meet
    assert task.model_arguments["vocabulary_size"] > batch["prompt"].max()
    assert task.lengths == [100, 200]


def test_the_reach_is_that_of_a_model_which_knows_its_keys_up_to_there(tmp_path: Path) -> None:
    """A stand-in that copies the key from a prompt of up to 200 tokens, and guesses at uniform text."""
    task = extension(tmp_path, 4)
    is_digit = torch.tensor([task.passkey.identifiers[str(digit)] for digit in range(10)])
    sentence = words("The pass key is 12345. Remember it. 12345 is the pass key.")
    assert sentence.count("1") == 2

    class Copies(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(task.model_arguments["vocabulary_size"]))

        def forward(self, tokens: torch.Tensor, state: None = None) -> tuple[torch.Tensor, None]:
            return self.bias.expand(*tokens.shape, -1), None

        def answer(self, prompt: torch.Tensor, steps: int) -> torch.Tensor:
            if prompt.shape[1] > 200:
                return torch.zeros(len(prompt), steps, dtype=torch.long)
            digits = torch.isin(prompt, is_digit)
            return torch.stack([row[found][:steps] for row, found in zip(prompt, digits)])

    found = task.evaluate(Copies()).metrics
    assert found["reach"] == 200
    assert found["digits/200/start"] == 1 and found["digits/400/start"] == 0
    assert found["digits_beyond"] == pytest.approx(1 / 3)  # of prompts of 200, 300 and 400 tokens
    assert found["gain_from_context"] == pytest.approx(0)


@pytest.mark.parametrize(
    ("digits", "expected"), [([0.9, 0.6, 0.4, 0.9], 200), ([0.1, 1.0, 1.0, 1.0], 0), ([1.0, 1.0, 1.0, 0.5], 400)]
)
def test_a_reach_ends_at_the_first_length_that_fails(digits: list[float], expected: int) -> None:
    rows: list[dict[str, Any]] = [{"length": 100 * (i + 1), "digits": share} for i, share in enumerate(digits)]
    assert reach(rows) == expected
