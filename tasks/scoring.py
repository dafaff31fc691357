"""Perplexity of documents in windows, under two protocols; each scores every token once."""

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
AT_ONCE = 2**14  # tokens per evaluation batch (at least one window); their logits take more memory than the model


class Scored(NamedTuple):
    """The scores of a stream: loss in nats and position in its window of each token, (N,), and the bytes of all."""

    losses: np.ndarray
    positions: np.ndarray
    bytes: int

    def by_position(self, bin: int) -> list[dict[str, float]]:
        """The mean loss by position in the window, in bins of `bin` tokens."""
        bins = self.positions // bin
        return [
            {"position": int(bin * (index + 0.5)), "loss": float(self.losses[bins == index].mean())}
            for index in np.unique(bins)
        ]


def documents_of(stream: TokenStream) -> list[np.ndarray]:
    """The tokens of each document, starting with its opening token."""
    return np.split(stream.tokens, stream.starts[1:])


def joined(documents: Sequence[np.ndarray]) -> TokenStream:
    """Concatenate documents."""
    starts = np.cumsum([0] + [len(document) for document in documents[:-1]])
    return TokenStream(np.concatenate(documents), starts)


def long_documents(stream: TokenStream, length: int) -> TokenStream:
    """The documents that fill a window of `length` tokens. Raises DataError if there are none."""
    documents = [document for document in documents_of(stream) if len(document) > length]
    if not documents:
        raise DataError(f"no test document has the {length} tokens of the longest window: choose a shorter window")
    return joined(documents)


class Scoring(ABC):
    """Scores the first documents of `test` in non-overlapping and in sliding windows.

    window: tokens of an evaluation window. stride: tokens that the sliding protocol scores per window, each with at
    least window - stride tokens of context. multiples: factors of the window length to evaluate; that a model rejects a
    factor above 1 is a result (`refused/…`). evaluation_tokens: number of tokens scored. tokens_per_batch: a batch has
    as many windows as fit into this number of tokens.
    """

    test: TokenStream
    window: int
    stride: int
    multiples: Sequence[int] = (1,)
    evaluation_tokens: int
    tokens_per_batch: int

    @abstractmethod
    def bytes_of(self, stream: TokenStream) -> np.ndarray:
        """The number of bytes of text of each token of a stream."""

    def check_windows(self) -> None:
        """Raise ValueError for an invalid stride or invalid multiples."""
        if not 0 < self.stride <= self.window:
            raise ValueError(f"task.stride must be from 1 to the window of {self.window} tokens, not {self.stride}")
        if 1 not in self.multiples or min(self.multiples) < 1:
            raise ValueError(f"task.multiples must be integers of at least 1 and include 1, not {list(self.multiples)}")

    def evaluate(self, model: nn.Module) -> Evaluation:
        result = Evaluation(tables={"protocol": []})
        for multiple in self.multiples:
            try:
                self.evaluate_with(model, multiple, result)
                refused = ""
            except ValueError as error:  # beyond the positions of the model's scheme
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
        """Add the results of both protocols with `multiple` times the window."""
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
        """Add the results of a protocol: loss in nats per token, perplexity, bits per byte, and its settings."""
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
        """The loss of every token of the documents, in order."""
        losses, positions = [], []
        for inputs, targets in self.windows(stream, window, stride):
            logits, _ = model(inputs.to(device_of(model)))
            counted = targets != IGNORED
            losses.append(nats(logits, targets)[counted.numpy()])
            positions.append(counted.nonzero()[:, 1].numpy())
        return self.collected(stream, np.concatenate(losses), np.concatenate(positions))

    def collected(self, stream: TokenStream, losses: np.ndarray, positions: np.ndarray) -> Scored:
        """Scores with the bytes of the scored tokens: the first tokens of the stream, without opening tokens."""
        sizes = np.delete(self.bytes_of(stream), stream.starts)
        return Scored(losses, positions, int(sizes[: len(losses)].sum()))

    def windows(self, stream: TokenStream, window: int, stride: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of windows (B, window) and their targets, which are IGNORED if another window scores the token.

        The first window of a document scores all of its tokens, each later one the next `stride` tokens.
        """
        pieces: list[tuple[int, int, int]] = []  # start, end, first target scored
        budget = self.evaluation_tokens
        for start, end in zip(stream.starts, [*stream.starts[1:], len(stream.tokens)]):
            last = min(end - 1, start + budget)  # the opening token is context and is not scored
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
    """The loss in nats (B, T) of targets (B, T), given logits (B, T, vocabulary); 0 where a target is IGNORED."""
    flat = targets.flatten().to(logits.device)
    kind = torch.promote_types(logits.dtype, torch.float32)
    found = F.cross_entropy(logits.flatten(0, 1).to(kind), flat, reduction="none", ignore_index=IGNORED)
    return found.view(targets.shape).cpu().double().numpy()
