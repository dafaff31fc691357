"""Perplexity of whole long documents: in windows, and as a stream with the state passed from piece to piece."""

import math
from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import nn

from tasks.base import Evaluation, Reading, device_of
from tasks.data.source import ScoredSplit
from tasks.data.tokens import Corpus, TokenStream
from tasks.language_modeling import LanguageModeling
from tasks.ranges import VocabularySize
from tasks.scoring import IGNORED, Scored, documents_of, joined, nats

FILLED = 10  # documents that fill a bin of token positions, or all if there are fewer
FIRST = 64  # end of the first bin of token positions in a document; each further bin ends at twice the last


class Perplexity(LanguageModeling):
    """Language modelling, evaluated on the longest documents of a split, from their start.

    evaluation_documents: number of documents, or all if there are fewer. longest: number of tokens of each that are
    scored; None for all. In addition to both window protocols, documents are read in pieces of one window with the
    state passed along (streaming). Every token then sees all tokens before it, as far as the state contains them, and
    memory grows with the document only if the state does. `streaming/gain` is the reduction of the loss in nats per
    token, relative to sliding windows. The table by_position has the loss of each protocol by position in the document,
    in bins that end at 64, 128, 256, … tokens. Raises ValueError for settings below 1.
    """

    def __init__(
        self,
        data: Corpus,
        seed: NonNegativeInt,
        length: PositiveInt,
        batch_size: PositiveInt,
        vocabulary_size: VocabularySize,
        stride: PositiveInt,
        cache: str,
        evaluation_documents: PositiveInt,
        longest: PositiveInt | None = None,
        carry_state: bool = False,
        split: ScoredSplit = "test",
    ):
        super().__init__(data, seed, length, batch_size, vocabulary_size, 0, stride, cache, carry_state, split=split)
        if evaluation_documents < 1 or (longest is not None and longest < 1):
            raise ValueError("task.evaluation_documents and task.longest must be 1 or more")
        self.test = longest_documents(self.test, evaluation_documents, longest)
        self.evaluation_tokens = len(self.test.tokens)

    def evaluate(self, model: nn.Module) -> Evaluation:
        result = super().evaluate(model)
        try:
            self.report(result, "streaming", self.stream(model, self.test), self.window, self.window)
            result.metrics["streaming/gain"] = result.metrics["sliding/loss"] - result.metrics["streaming/loss"]
        except ValueError:  # beyond the positions of the model's scheme
            result.metrics["refused/streaming"] = 1.0
        return result

    def readings(self, model: nn.Module) -> list[Reading]:
        lengths = sorted(map(len, documents_of(self.test)))
        rows = max(1, self.tokens_per_batch // self.window)
        longest = lengths[rows - 1 :: rows] + lengths[len(lengths) // rows * rows :][-1:]  # of each batch
        pieces = [-(-(length - 1) // self.window) for length in longest]
        refused = (getattr(model, "limit", None) or math.inf) < lengths[-1]
        streams = [Reading(rows, self.window, pieces=count) for count in pieces]
        return super().readings(model) + ([] if refused else streams)

    def report(self, result: Evaluation, name: str, scored: Scored, window: int, stride: int, place: str = "") -> None:
        super().report(result, name, scored, window, stride, place)
        result.tables.setdefault("by_position", []).extend(
            {"protocol": name, **row} for row in by_position(self.test, scored.losses, self.counted(self.test))
        )

    @torch.no_grad()
    def stream(self, model: nn.Module, stream: TokenStream) -> Scored:
        """The loss of every counted token of the documents, in order, with the state passed along.

        A batch has documents of similar length; a row whose document has ended reads zeros, which are not scored.
        """
        documents = documents_of(stream)
        losses = [np.zeros(len(document) - 1) for document in documents]
        order = sorted(range(len(documents)), key=lambda index: len(documents[index]))
        rows = max(1, self.tokens_per_batch // self.window)
        for group in (order[index : index + rows] for index in range(0, len(order), rows)):
            state: Any = None
            for start in range(0, max(len(losses[index]) for index in group), self.window):
                pieces = [documents[index][start : start + self.window + 1].astype(np.int64) for index in group]
                inputs = torch.zeros(len(group), max(map(len, pieces)) - 1, dtype=torch.long)
                targets = torch.full_like(inputs, IGNORED)
                for row, piece in enumerate(map(torch.from_numpy, pieces)):
                    inputs[row, : len(piece[:-1])] = piece[:-1]
                    targets[row, : len(piece[1:])] = piece[1:]
                logits, state = model(inputs.to(device_of(model)), state)
                found = nats(logits, targets)
                for row, index in enumerate(group):
                    part = losses[index][start : start + self.window]
                    part[:] = found[row, : len(part)]
        positions = np.concatenate([np.arange(len(row)) for row in losses])
        counted = np.delete(self.counted(stream), stream.starts)
        return self.collected(stream, np.concatenate(losses)[counted], positions[counted])


def longest_documents(stream: TokenStream, number: int, longest: int | None) -> TokenStream:
    """The `number` longest documents, in order, each truncated to its opening token and `longest` more tokens."""
    documents = documents_of(stream)
    chosen = sorted(sorted(range(len(documents)), key=lambda index: -len(documents[index]))[:number])
    return joined([documents[index][: None if longest is None else longest + 1] for index in chosen])


def by_position(stream: TokenStream, losses: np.ndarray, counted: np.ndarray) -> list[dict[str, Any]]:
    """The mean loss by position in the document, in bins that end at 64, 128, 256, … tokens.

    counted (N,) bool: the scored tokens of the documents. losses: of these tokens, in order. A bin has the tokens of
    the documents that fill it, and is omitted if fewer than FILLED do.
    """
    lengths = np.array([len(document) for document in documents_of(stream)])
    before = np.concatenate([np.arange(length) for length in lengths])[counted]
    sizes = np.repeat(lengths, lengths)[counted]  # of the document of each token
    rows: list[dict[str, Any]] = []
    start, end = 0, FIRST
    while (documents := int((lengths >= end).sum())) >= min(FILLED, len(lengths)):
        inside = (start <= before) & (before < end) & (sizes >= end)
        if inside.any():
            loss = float(losses[inside].mean())
            rows.append({"position": end, "loss": loss, "tokens": int(inside.sum()), "documents": documents})
        start, end = end, 2 * end
    return rows
