"""Perplexity of documents by windows: every token is scored once, by two protocols."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.base import Evaluation, Reading, device_of
from tasks.data.source import DataError
from tasks.data.tokens import TokenStream

IGNORED = -100
AT_ONCE = 2**14  # tokens read at a time in an evaluation, one window at least: their logits are larger than the model


class Scored(NamedTuple):
    """What scoring a stream came to: nats and place in its window of each token, (N,), and the bytes of all."""

    losses: np.ndarray
    places: np.ndarray
    bytes: int

    def by_position(self, bin: int) -> list[dict[str, float]]:
        """The mean loss of the tokens whose place in their window falls into each bin of so many tokens."""
        bins = self.places // bin
        return [
            {"position": int(bin * (index + 0.5)), "loss": float(self.losses[bins == index].mean())}
            for index in np.unique(bins)
        ]


def documents_of(stream: TokenStream) -> list[np.ndarray]:
    """The tokens of each document, its opening one first."""
    return np.split(stream.tokens, stream.starts[1:])


def joined(documents: Sequence[np.ndarray]) -> TokenStream:
    """Documents one after the other."""
    starts = np.cumsum([0] + [len(document) for document in documents[:-1]])
    return TokenStream(np.concatenate(documents), starts)


def long_documents(stream: TokenStream, length: int) -> TokenStream:
    """The documents that fill a window of so many tokens. Raises DataError if none does."""
    documents = [document for document in documents_of(stream) if len(document) > length]
    if not documents:
        raise DataError(f"no test document has the {length} tokens of the longest window: choose a shorter one")
    return joined(documents)


class Scoring(ABC):
    """Scores the documents of `test`, from the first on, by non-overlapping and by sliding windows.

    window: tokens of an evaluation window. stride: how many the sliding protocol scores a window, every one of them
    with at least window - stride tokens of context. multiples: how many times the window to evaluate with; that a model
    refuses a window longer than 1 is a result. evaluation_tokens: how many tokens are scored. tokens_per_batch: a batch
    holds as many windows as fit into it.
    """

    test: TokenStream
    window: int
    stride: int
    multiples: Sequence[int] = (1,)
    evaluation_tokens: int
    tokens_per_batch: int

    @abstractmethod
    def bytes_of(self, stream: TokenStream) -> np.ndarray:
        """How many bytes of text each token of a stream stands for."""

    def check_windows(self) -> None:
        """Raise ValueError if windows, strides and multiples do not fit each other."""
        if not 0 < self.stride <= self.window:
            raise ValueError(f"task.stride must be from 1 to the window of {self.window} tokens, not {self.stride}")
        if 1 not in self.multiples or min(self.multiples) < 1:
            raise ValueError(
                f"task.multiples must be whole numbers from 1 on, 1 among them, not {list(self.multiples)}"
            )

    def evaluate(self, model: nn.Module) -> Evaluation:
        result = Evaluation(tables={"protocol": []})
        for multiple in self.multiples:
            try:
                self.evaluate_with(model, multiple, result)
                refused = ""
            except ValueError as error:  # a position that the model's scheme does not have
                if multiple == 1:
                    raise
                refused = str(error)
            if multiple > 1:
                result.metrics[f"refused/{multiple}x"] = float(bool(refused))
        return result

    def readings(self, model: nn.Module) -> list[Reading]:
        tokens = min(self.evaluation_tokens, len(self.test.tokens) - len(self.test.starts))
        limit = getattr(model, "limit", None) or math.inf
        windows = [(multiple * self.window, multiple * self.stride) for multiple in self.multiples]
        return [
            Reading(rows := max(1, self.tokens_per_batch // window), window, tokens / scored / rows)
            for window, stride in windows
            for scored in (window, stride)
            if window <= limit
        ]

    def evaluate_with(self, model: nn.Module, multiple: int, result: Evaluation) -> None:
        """Add what both protocols find with `multiple` times the window."""
        window, place = multiple * self.window, "" if multiple == 1 else f"{multiple}x/"
        for name, stride in (("nonoverlapping", window), ("sliding", multiple * self.stride)):
            scored = self.score(model, self.test, window, stride)
            self.report(result, name, scored, window, stride, place)
            if multiple > 1:
                loss, first = result.metrics[f"{name}/{place}loss"], result.metrics[f"{name}/loss"]
                result.metrics[f"{name}/{place}degradation"] = loss - first
            if name == "nonoverlapping" and max(self.multiples) > 1:
                result.tables["by_position"] = scored.by_position(bin=self.window // 4)

    def report(self, result: Evaluation, name: str, scored: Scored, window: int, stride: int, place: str = "") -> None:
        """Add what a protocol found: loss in nats per token, perplexity and bits per byte, and what it is."""
        loss = float(scored.losses.mean())
        result.metrics |= {
            f"{name}/{place}loss": loss,
            f"{name}/{place}perplexity": math.exp(min(loss, 700.0)),
            f"{name}/{place}bits_per_byte": float(scored.losses.sum()) / math.log(2) / scored.bytes,
        }
        tokens = len(scored.losses)
        result.tables["protocol"].append(
            {"protocol": name, "window": window, "stride": stride, "tokens": tokens, "bytes": scored.bytes}
        )

    @torch.no_grad()
    def score(self, model: nn.Module, stream: TokenStream, window: int, stride: int) -> Scored:
        """The loss of every token of the documents, each once, in their order."""
        losses, places = [], []
        for inputs, targets in self.windows(stream, window, stride):
            logits, _ = model(inputs.to(device_of(model)))
            counted = targets != IGNORED
            losses.append(nats(logits, targets)[counted.numpy()])
            places.append(counted.nonzero()[:, 1].numpy())
        return self.collected(stream, np.concatenate(losses), np.concatenate(places))

    def collected(self, stream: TokenStream, losses: np.ndarray, places: np.ndarray) -> Scored:
        """The same with the bytes of the tokens that were scored: the first ones that open no document."""
        sizes = np.delete(self.bytes_of(stream), stream.starts)
        return Scored(losses, places, int(sizes[: len(losses)].sum()))

    def windows(self, stream: TokenStream, window: int, stride: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of windows (B, window) with their targets, IGNORED where another window scores the token.

        A document's first window scores all of its tokens, each later one the `stride` tokens after those scored.
        """
        pieces: list[tuple[int, int, int]] = []  # start, end, first target scored
        budget = self.evaluation_tokens
        for start, end in zip(stream.starts, [*stream.starts[1:], len(stream.tokens)]):
            last = min(end - 1, start + budget)  # the document's own opening token is given, not scored
            scored = start
            while scored < last:
                stop = min(last, scored + (window if scored == start else stride))
                first = start if scored == start else scored + stride - window
                pieces.append((max(start, first), stop, scored))
                scored = stop
            budget -= last - start
            if budget <= 0:
                break
        rows = max(1, self.tokens_per_batch // window)
        for index in range(0, len(pieces), rows):
            group = pieces[index : index + rows]
            inputs = torch.zeros(len(group), max(stop - first for first, stop, _ in group), dtype=torch.long)
            targets = torch.full_like(inputs, IGNORED)
            for row, (first, stop, scored) in enumerate(group):
                tokens = torch.from_numpy(stream.tokens[first : stop + 1].astype(np.int64))
                inputs[row, : stop - first] = tokens[:-1]
                targets[row, scored - first : stop - first] = tokens[1 + scored - first :]
            yield inputs, targets


def nats(logits: Tensor, targets: Tensor) -> np.ndarray:
    """The loss of each target (B, T) under logits (B, T, vocabulary) in nats, 0 where it is IGNORED."""
    flat = targets.flatten().to(logits.device)
    kind = torch.promote_types(logits.dtype, torch.float32)
    found = F.cross_entropy(logits.flatten(0, 1).to(kind), flat, reduction="none", ignore_index=IGNORED)
    return found.view(targets.shape).cpu().double().numpy()
