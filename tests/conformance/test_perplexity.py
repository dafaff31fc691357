"""Perplexity of whole documents: a stream with carried state is one pass over each document, and no more memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import choices, decoder, state_floats
from test_tasks import Bigram, Books, stream_of
from torch import nn
from torch.nn import functional as F

from tasks.data.tokens import TokenStream
from tasks.perplexity import Perplexity, by_position, longest_documents
from tasks.scoring import documents_of

LENGTHS = (3, 40, 8, 17, 37, 16)


def perplexity(cache: Path, **settings: Any) -> Perplexity:
    given = {"length": 8, "batch_size": 3, "vocabulary_size": 270, "stride": 3, "evaluation_documents": 9}
    return Perplexity(Books(), seed=0, cache=str(cache), **(given | settings))


@torch.no_grad()
def in_one_pass(model: nn.Module, document: np.ndarray) -> np.ndarray:
    """The loss of each token of a document, from one call of the model."""
    tokens = torch.from_numpy(document.astype(np.int64))
    logits, _ = model(tokens[None, :-1])
    return F.cross_entropy(logits[0], tokens[1:], reduction="none").numpy()


@pytest.mark.slow
@pytest.mark.parametrize("attention", choices("attention"))
def test_a_stream_scores_every_token_as_one_pass_over_its_document_does(attention: str, tmp_path: Path) -> None:
    """Three documents of different lengths share a batch, and each is scored as if it were alone."""
    model, stream = decoder(attention, "rope"), stream_of(*LENGTHS)
    scored = perplexity(tmp_path).stream(model, stream)
    expected = np.concatenate([in_one_pass(model, document) for document in documents_of(stream)])
    assert len(scored.losses) == sum(LENGTHS)
    np.testing.assert_allclose(scored.losses, expected, rtol=1e-10)
    alone = np.concatenate([perplexity(tmp_path).stream(model, stream_of(n)).losses for n in LENGTHS])
    np.testing.assert_allclose(scored.losses, alone, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["infini_delta", "infini_linear", "transformer_xl", "window", "recurrent_memory"])
def test_a_stream_needs_as_much_memory_however_long_it_is(attention: str, tmp_path: Path) -> None:
    sizes: list[tuple[int, int]] = []
    model = decoder(attention)
    model.register_forward_hook(lambda _, given, found: sizes.append((given[0].numel(), state_floats(found[1]))))
    perplexity(tmp_path).stream(model, stream_of(480))
    assert len(sizes) == 60 and len(set(sizes[4:])) == 1


def test_all_three_protocols_are_reported_over_the_same_tokens(tmp_path: Path) -> None:
    task = perplexity(tmp_path)
    found = task.evaluate(Bigram(task.model_arguments["vocabulary_size"]))
    names = ["nonoverlapping", "sliding", "streaming"]
    assert [row["protocol"] for row in found.tables["protocol"]] == names
    assert len({(row["tokens"], row["bytes"]) for row in found.tables["protocol"]}) == 1
    size = sum(len(document.text.encode()) for document in Books().documents("test"))
    assert found.tables["protocol"][0]["bytes"] == size
    for name in names:  # to a model of one token all are the same
        assert found.metrics[f"{name}/loss"] == pytest.approx(found.metrics["streaming/loss"], rel=1e-5)
        assert found.metrics[f"{name}/bits_per_byte"] == pytest.approx(
            found.metrics["streaming/bits_per_byte"], rel=1e-5
        )
    assert found.metrics["streaming/gain"] == pytest.approx(0, abs=1e-5)


def test_a_stream_beyond_the_positions_of_a_model_is_a_result(tmp_path: Path) -> None:
    task = perplexity(tmp_path)
    model = decoder("full", "learned", "position.max_length=8")
    model.embedding = nn.Embedding(task.model_arguments["vocabulary_size"], model.embedding.embedding_dim).double()
    found = task.evaluate(model)
    assert found.metrics["refused/streaming"] == 1 and "streaming/loss" not in found.metrics
    assert found.metrics["sliding/loss"] > 0


def test_the_longest_documents_are_cut_and_keep_their_order() -> None:
    stream = stream_of(*LENGTHS)
    whole = documents_of(stream)
    for longest, size in ((None, 40), (20, 20)):
        chosen = documents_of(longest_documents(stream, 3, longest))
        assert [len(document) - 1 for document in chosen] == [size, 17, min(37, size)]
        for document, index in zip(chosen, (1, 3, 4)):
            assert np.array_equal(document, whole[index][: len(document)])
    assert len(longest_documents(stream, 99, None).tokens) == len(stream.tokens)


def test_places_are_told_apart_where_all_documents_have_them() -> None:
    lengths = (300, 255, 700)
    stream = TokenStream(np.zeros(sum(lengths) + 3, np.uint16), np.array([0, 301, 557]))
    losses = np.concatenate([np.arange(1, n + 1) for n in lengths]).astype(float)  # as many as come before
    rows = by_position(stream, losses, text_of(stream))
    assert [(row["position"], row["tokens"]) for row in rows] == [(64, 3 * 63), (128, 3 * 64), (256, 3 * 128)]
    assert [row["loss"] for row in rows] == pytest.approx([32, 95.5, 191.5])
    assert by_position(stream_of(5, 80), np.ones(85), text_of(stream_of(5, 80))) == []
    ended = stream_of(*[200] * 9, 70, 700)  # ten of eleven fill the second bin, one the third
    found = by_position(ended, np.ones(len(ended.tokens) - 11), text_of(ended))
    assert [(row["position"], row["documents"], row["tokens"]) for row in found] == [(64, 11, 11 * 63), (128, 10, 640)]


def text_of(stream: TokenStream) -> np.ndarray:
    """All tokens but the opening ones."""
    return np.isin(np.arange(len(stream.tokens)), stream.starts, invert=True)
