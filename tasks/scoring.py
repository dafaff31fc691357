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
GOLDEN = (5**0.5 - 1) / 2
FEWEST = 50  # documents whose tokens are scored, if there are as many
AT_ONCE = 2**14  # tokens per evaluation batch (at least one window); their logits take more memory than the model


class Scored(NamedTuple):
    """The scores of a stream: loss in nats and position in its window of each scored token, (N,), and the bytes and the
    documents of all."""

    losses: np.ndarray
    positions: np.ndarray
    bytes: int
    documents: int

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
        raise DataError(f"no document of the split has the {length} tokens of the longest window: choose a shorter one")
    return joined(documents)


def spread(stream: TokenStream, tokens: int, window: int) -> np.ndarray:
    """Which tokens of a stream to score, (N,) bool: `tokens` of them, from FEWEST documents or more if it has as many.

    Documents are divided into pieces of whole windows, or into halves, quarters … of a window where FEWEST windows have
    more than `tokens` tokens. Every document gives one of its pieces before any gives another. Which one is given first
    follows the multiples of the golden ratio, so that no place in a document or in a window is preferred.
    """
    share, parts = max(1, tokens // FEWEST), 1
    while window // parts > share:
        parts *= 2
    unit = window * max(1, share // window)  # a piece has unit / parts tokens
    chosen = np.zeros(len(stream.tokens), bool)
    ends = np.append(stream.starts[1:], len(stream.tokens))
    counts = -(-(ends - stream.starts - 1) * parts // unit)
    offsets = (counts * (np.arange(len(counts)) * GOLDEN % 1)).astype(np.int64)
    remaining, turn = list(range(len(counts))), 0
    while remaining := [index for index in remaining if turn < counts[index]]:
        for index in remaining:
            piece = (offsets[index] + turn) % counts[index]
            first = stream.starts[index] + 1  # the opening token is not scored
            begin, end = first + unit * piece // parts, first + unit * (piece + 1) // parts
            end = min(end, ends[index], begin + tokens)
            chosen[begin:end] = True
            tokens -= end - begin
            if tokens <= 0:
                return chosen
        turn += 1
    return chosen


def documents_with(tokens: np.ndarray, stream: TokenStream) -> int:
    """The number of documents of a stream that have some of these tokens, (N,) bool."""
    return int(np.logical_or.reduceat(tokens, stream.starts).sum())


class Scoring(ABC):
    """Scores documents of `test` in non-overlapping and, if asked, in sliding windows that begin at its start.

    window: tokens of an evaluation window. stride: tokens that the sliding protocol scores per window, each with at
    least window - stride tokens of context; None leaves this protocol out. multiples: factors of the window length to
    evaluate; that a model rejects a factor above 1 is a result (`refused/…`). evaluation_tokens: number of tokens
    scored, spread over the documents (see `spread`); every window scores the same ones. tokens_per_batch: a batch has
    as many windows as fit into this number of tokens.
    """

    test: TokenStream
    window: int
    stride: int | None
    multiples: Sequence[int] = (1,)
    evaluation_tokens: int
    tokens_per_batch: int

    @abstractmethod
    def bytes_of(self, stream: TokenStream) -> np.ndarray:
        """The number of bytes of text of each token of a stream."""

    def chosen(self, stream: TokenStream) -> np.ndarray:
        """The tokens of a stream to score, (N,) bool."""
        return spread(stream, self.evaluation_tokens, max(self.multiples) * self.window)

    def counted(self, stream: TokenStream) -> np.ndarray:
        """Those of the chosen tokens that are not left out, (N,) bool."""
        return self.chosen(stream)

    def check_windows(self) -> None:
        """Raise ValueError for an invalid stride or invalid multiples."""
        if self.stride is not None and not 0 < self.stride <= self.window:
            raise ValueError(f"task.stride must be from 1 to the window of {self.window} tokens, not {self.stride}")
        if 1 not in self.multiples or min(self.multiples) < 1:
            raise ValueError(f"task.multiples must be integers of at least 1 and include 1, not {list(self.multiples)}")

    def evaluate(self, model: nn.Module) -> Evaluation:
        documents = documents_with(self.counted(self.test), self.test)
        result = Evaluation({"documents": float(documents)}, {"protocol": []})
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
        chosen = self.chosen(self.test)
        limit = getattr(model, "limit", None) or math.inf
        return [
            Reading(rows := max(1, self.tokens_per_batch // window), window, read / window / rows)
            for multiple in self.multiples
            if (window := multiple * self.window) <= limit
            for scored in self.protocols(multiple).values()
            for read in [sum(stop - first for first, stop, _ in pieces(self.test, chosen, window, scored))]
        ]

    def protocols(self, multiple: int) -> dict[str, int]:
        """The tokens that a window scores under each protocol, with `multiple` times the window."""
        sliding = {} if self.stride is None else {"sliding": multiple * self.stride}
        return {"nonoverlapping": multiple * self.window} | sliding

    def evaluate_with(self, model: nn.Module, multiple: int, result: Evaluation) -> None:
        """Add the results of the protocols with `multiple` times the window."""
        window, place = multiple * self.window, "" if multiple == 1 else f"{multiple}x/"
        for name, stride in self.protocols(multiple).items():
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
        sizes = {"tokens": len(scored.losses), "bytes": scored.bytes, "documents": scored.documents}
        result.tables["protocol"].append({"protocol": name, "window": window, "stride": stride, **sizes})

    @torch.no_grad()
    def score(self, model: nn.Module, stream: TokenStream, window: int, stride: int) -> Scored:
        """The loss of every counted token of the documents, in order."""
        losses, positions = [], []
        for inputs, targets in self.windows(stream, window, stride):
            logits, _ = model(inputs.to(device_of(model)))
            counted = targets != IGNORED
            losses.append(nats(logits, targets)[counted.numpy()])
            positions.append(counted.nonzero()[:, 1].numpy())
        return self.collected(stream, np.concatenate(losses), np.concatenate(positions))

    def collected(self, stream: TokenStream, losses: np.ndarray, positions: np.ndarray) -> Scored:
        """Scores of the counted tokens, with their bytes and documents."""
        counted = self.counted(stream)
        return Scored(losses, positions, int(self.bytes_of(stream)[counted].sum()), documents_with(counted, stream))

    def windows(self, stream: TokenStream, window: int, stride: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of windows (B, window) and their targets, which are IGNORED if another window scores the token or if
        it is not counted."""
        counted = self.counted(stream)
        found = pieces(stream, counted, window, stride)
        rows = max(1, self.tokens_per_batch // window)
        for index in range(0, len(found), rows):
            group = found[index : index + rows]
            inputs = torch.zeros(len(group), max(stop - first for first, stop, _ in group), dtype=torch.long)
            targets = torch.full_like(inputs, IGNORED)
            for row, (first, stop, scored) in enumerate(group):
                tokens = torch.from_numpy(stream.tokens[first : stop + 1].astype(np.int64))
                inputs[row, : stop - first] = tokens[:-1]
                own = torch.from_numpy(counted[scored + 1 : stop + 1])
                targets[row, scored - first : stop - first] = tokens[1 + scored - first :].where(own, IGNORED)
            yield inputs, targets


def pieces(stream: TokenStream, counted: np.ndarray, window: int, stride: int) -> list[tuple[int, int, int]]:
    """The windows that score a counted token: start, end and the token before the first one that the window scores.

    The first window of a document scores all of its tokens, each later one the next `stride` tokens. A window ends with
    the last token that it scores.
    """
    found: list[tuple[int, int, int]] = []
    for start, end in zip(stream.starts, [*stream.starts[1:], len(stream.tokens)]):
        scored = start  # the opening token is context and is not scored
        while scored < end - 1:
            stop = min(end - 1, scored + (window if scored == start else stride))
            first = start if scored == start else scored + stride - window
            own = np.flatnonzero(counted[scored + 1 : stop + 1])
            if len(own):
                found.append((max(start, first), scored + 1 + own[-1], scored))
            scored = stop
    return found


def nats(logits: Tensor, targets: Tensor) -> np.ndarray:
    """The loss in nats (B, T) of targets (B, T), given logits (B, T, vocabulary); 0 where a target is IGNORED."""
    flat = targets.flatten().to(logits.device)
    kind = torch.promote_types(logits.dtype, torch.float32)
    found = F.cross_entropy(logits.flatten(0, 1).to(kind), flat, reduction="none", ignore_index=IGNORED)
    return found.view(targets.shape).cpu().double().numpy()
