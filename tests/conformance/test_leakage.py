"""What is scored: tokens of many documents, without the spans that also stand in the training text."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from support import decoder
from test_tasks import Books, nats_by_hand, stream_of
from torch import nn

from tasks.data import leakage
from tasks.data.leakage import SPAN, leaked_tokens
from tasks.data.source import DataError
from tasks.data.text import Document
from tasks.data.tokens import TokenStream
from tasks.language_modeling import LanguageModeling
from tasks.masked_language_modeling import MaskedLanguageModeling
from tasks.perplexity import Perplexity
from tasks.scoring import IGNORED, documents_of, documents_with, joined, spread


def random_documents(seed: int, *lengths: int, vocabulary: int = 300) -> TokenStream:
    generator = np.random.default_rng(seed)
    return joined([np.array([0, *generator.integers(1, vocabulary, length)], np.uint16) for length in lengths])


def by_hand(stream: TokenStream, training: np.ndarray) -> np.ndarray:
    """Every span of every document, looked for in all spans of the training text."""
    seen = {training[start : start + SPAN].tobytes() for start in range(len(training) - SPAN + 1)}
    found = []
    for document in documents_of(stream):
        leaked = np.zeros(len(document), bool)
        for start in range(1, len(document) - SPAN + 1):
            if document[start : start + SPAN].tobytes() in seen:
                leaked[start : start + SPAN] = True
        found.append(leaked)
    return np.concatenate(found)


@pytest.mark.parametrize("chunk", [7, 64, 2**20])
def test_a_planted_span_is_found_and_nothing_else(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage, "CHUNK", chunk)
    training, scored = random_documents(1, 400, 900).tokens, random_documents(2, 300, 40, 200)
    assert not leaked_tokens(*scored, training).any()
    scored.tokens[100:170] = training[500:570]
    scored.tokens[310 : 310 + SPAN - 1] = training[700 : 700 + SPAN - 1]  # one token too short
    assert np.flatnonzero(leaked_tokens(*scored, training)).tolist() == list(range(100, 170))
    scored.tokens[-SPAN:] = training[-SPAN:]
    expected = [*range(100, 170), *range(len(scored.tokens) - SPAN, len(scored.tokens))]
    assert np.flatnonzero(leaked_tokens(*scored, training)).tolist() == expected


@pytest.mark.parametrize("seed", range(5))
def test_leaked_spans_are_those_of_a_plain_search(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans copied to random places, on and over the ends of documents, in texts of few words that repeat."""
    monkeypatch.setattr(leakage, "CHUNK", 300)
    generator, training = np.random.default_rng(seed), random_documents(seed, 500, 20, 900, vocabulary=3).tokens
    scored = random_documents(seed + 9, 30, 400, SPAN, SPAN - 1, 300, 1, vocabulary=3)
    for _ in range(6):
        length = int(generator.integers(SPAN - 10, 120))
        here, there = generator.integers(0, len(scored.tokens) - length), generator.integers(0, 1300)
        own = training[there : there + length]
        scored.tokens[here : here + len(own)] = own
    scored.tokens[scored.tokens == 0] = 1
    scored.tokens[scored.starts] = 0
    expected = by_hand(scored, training)
    assert expected.any() and np.array_equal(leaked_tokens(*scored, training), expected)
    assert not leaked_tokens(*random_documents(0, 9), training).any()  # shorter than a span
    assert not leaked_tokens(*scored, training[:9]).any()


@pytest.mark.parametrize("window", [8, 100, 1024])
@pytest.mark.parametrize("tokens", [1000, 5000, 32_768, 10**6])
def test_tokens_are_of_many_documents_and_of_all_places(window: int, tokens: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 6000, 72)
    stream = random_documents(0, *lengths)
    chosen = spread(stream, tokens, window)
    assert chosen.sum() == min(tokens, lengths.sum()) and not chosen[stream.starts].any()
    assert documents_with(chosen, stream) >= 50
    places = np.concatenate([np.arange(length + 1) for length in lengths])[chosen]
    assert np.mean(places > 1500) > 0.25  # not the beginnings alone
    assert np.histogram(places % window, 4, (0, window))[0].min() > 0.1 * min(tokens, lengths.sum())


def test_few_documents_give_as_many_tokens_as_there_are() -> None:
    stream = random_documents(0, 3, 1000, 50)
    for tokens in (1, 60, 900, 1053, 2000):
        assert spread(stream, tokens, 64).sum() == min(tokens, 1053)


class Copied:
    """Documents of random words, of which the second test document has a part of a training document."""

    name, fingerprint = "copied", "0011223344556677"

    def documents(self, split: str) -> list[Document]:
        generator = np.random.default_rng(0)
        texts = ["".join(generator.choice(list("abcdefghij \n"), 700)) for _ in range(4)]
        texts[3] = texts[3][:300] + texts[0][100:300] + texts[3][500:]
        chosen = texts[:2] if split == "train" else texts[2:]
        return [Document(f"{split}/{index}", text) for index, text in enumerate(chosen)]


SETTINGS = {"seed": 0, "length": 16, "batch_size": 3, "vocabulary_size": 259}  # a token a byte


def modeling(cache: Path, tokens: int = 10**6) -> LanguageModeling:
    return LanguageModeling(Copied(), evaluation_tokens=tokens, stride=4, cache=str(cache), **SETTINGS)


def small_decoder(vocabulary: int) -> nn.Module:
    model = decoder("full", "rope")
    model.embedding = nn.Embedding(vocabulary, model.embedding.embedding_dim).double()
    return model


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(("name", "stride"), [("nonoverlapping", 16), ("sliding", 4)])
def test_the_loss_is_that_of_the_tokens_that_are_not_leaked(name: str, stride: int, tmp_path: Path) -> None:
    task = modeling(tmp_path)
    model = small_decoder(task.model_arguments["vocabulary_size"])
    found = task.evaluate(model).metrics
    leaked = np.zeros(2 * 701, bool)
    leaked[701 + 301 : 701 + 501] = True  # context still, but no target
    assert np.array_equal(task.corpus.leaked(task.test, task.train), leaked)
    assert found["leaked_share"] == pytest.approx(200 / 1400) and found["documents"] == 2
    first, second = documents_of(task.test)

    def nats(document: np.ndarray) -> float:
        return nats_by_hand(model, document, 16, stride)

    total = nats(first) + nats(second) - (nats(second[:501]) - nats(second[:301]))
    assert found[f"{name}/loss"] == pytest.approx(total / 1200, rel=1e-5)
    assert found[f"{name}/bits_per_byte"] == pytest.approx(total / 1200 / math.log(2), rel=1e-5)
    alone = joined([first])
    assert task.score(model, alone, 16, stride).losses.mean() == pytest.approx(nats(first) / 700, rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("stride", [16, 4])
def test_a_spread_evaluation_scores_its_tokens_as_one_of_all_tokens_does(stride: int, tmp_path: Path) -> None:
    part, whole = modeling(tmp_path, 250), modeling(tmp_path)
    model, stream = small_decoder(259), stream_of(5, 80, 100, 33, 17)
    chosen = part.counted(stream)[whole.counted(stream)]
    assert 0 < chosen.sum() == part.chosen(stream).sum() or chosen.all()
    some, every = part.score(model, stream, 16, stride), whole.score(model, stream, 16, stride)
    np.testing.assert_allclose(some.losses, every.losses[chosen], rtol=1e-10)
    assert np.array_equal(some.positions, every.positions[chosen])


@torch.no_grad()
def test_a_stream_leaves_out_the_same_tokens(tmp_path: Path) -> None:
    task = Perplexity(Copied(), stride=4, evaluation_documents=9, cache=str(tmp_path), **SETTINGS)
    found = task.evaluate(small_decoder(259))
    sizes = {(row["protocol"], row["tokens"], row["bytes"], row["documents"]) for row in found.tables["protocol"]}
    assert sizes == {(name, 1200, 1200, 2) for name in ("nonoverlapping", "sliding", "streaming")}
    streamed = {row["position"]: row["tokens"] for row in found.tables["by_position"] if row["protocol"] == "streaming"}
    assert streamed == {64: 126, 128: 128, 256: 256, 512: 512 - 200}


def test_leaked_tokens_are_not_asked_for_when_masked(tmp_path: Path) -> None:
    task = MaskedLanguageModeling(Copied(), evaluation_tokens=10**6, cache=str(tmp_path), **SETTINGS)
    asked: list[torch.Tensor] = []

    class Guess(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(task.mask + 1))

        def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, None]:
            asked.append(tokens == task.mask)
            return self.bias.expand(*tokens.shape, -1), None

    found = task.evaluate(Guess()).metrics
    assert found["leaked_share"] == pytest.approx(200 / 1392) and found["documents"] == 2
    assert found["masked/loss"] == pytest.approx(math.log(task.mask + 1), rel=1e-6)
    assert torch.cat(asked).flatten()[1001:1201].any()  # they may be hidden, as context is


def test_a_split_that_is_all_leaked_is_one_line(tmp_path: Path) -> None:
    class Same(Books):
        fingerprint = "0000000000000000"

        def documents(self, split: str) -> list[Document]:
            return super().documents("train")

    task = LanguageModeling(Same(), evaluation_tokens=99, stride=4, cache=str(tmp_path), **SETTINGS)
    with pytest.raises(DataError, match="all tokens of the test split that would be scored stand in the training text"):
        task.evaluate(small_decoder(259))


def test_leaked_tokens_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = modeling(tmp_path)
    found = first.corpus.leaked(first.test, first.train)
    monkeypatch.setattr("tasks.data.tokens.leaked_tokens", None)
    again = modeling(tmp_path)
    assert np.array_equal(again.corpus.leaked(again.test, again.train), found)


def test_targets_that_are_left_out_are_ignored_in_the_windows(tmp_path: Path) -> None:
    task = modeling(tmp_path)
    targets = torch.cat([targets[targets != IGNORED] for _, targets in task.windows(task.test, 16, 4)])
    assert targets.tolist() == task.test.tokens[task.counted(task.test)].tolist()
