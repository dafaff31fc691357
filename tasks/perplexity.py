"""Perplexity of whole long documents: by windows, and as a stream whose state is carried from piece to piece."""

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from tasks.base import Evaluation, Reading, device_of
from tasks.data.tokens import Corpus, TokenStream
from tasks.language_modeling import LanguageModeling
from tasks.scoring import IGNORED, Scored, documents_of, joined, nats

FIRST = 64  # tokens of the first bin of places in a document; each later bin ends at twice as many


class Perplexity(LanguageModeling):
    """Language modelling, judged on the longest documents of the test split, from their beginning on.

    evaluation_documents: how many of them, all of them if there are fewer. longest: how many tokens of each are scored,
    None for all. Besides both protocols of windows a document goes through in pieces of one window with carried state:
    every token sees all before it, as far as the state holds it, and the memory needed does not grow with the document
    unless the state does. `streaming/gain` is what this saves in nats per token against sliding windows.
    The table by_position has the loss of each protocol by a token's place in its document, in bins that end at 64, 128,
    256, … tokens and that all documents fill, so that each bin is of the same documents.
    """

    def __init__(
        self,
        data: Corpus,
        seed: int,
        length: int,
        batch_size: int,
        vocabulary_size: int,
        stride: int,
        cache: str,
        evaluation_documents: int,
        longest: int | None = None,
        carry_state: bool = False,
    ):
        super().__init__(data, seed, length, batch_size, vocabulary_size, 0, stride, cache, carry_state)
        if evaluation_documents < 1 or (longest is not None and longest < 1):
            raise ValueError("task.evaluation_documents and task.longest must be 1 or more")
        self.test = longest_documents(self.test, evaluation_documents, longest)
        self.evaluation_tokens = len(self.test.tokens)

    def evaluate(self, model: nn.Module) -> Evaluation:
        result = super().evaluate(model)
        try:
            self.report(result, "streaming", self.stream(model, self.test), self.window, self.window)
            result.metrics["streaming/gain"] = result.metrics["sliding/loss"] - result.metrics["streaming/loss"]
        except ValueError:  # a position that the model's scheme does not have
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
            {"protocol": name, **row} for row in by_position(self.test, scored.losses)
        )

    @torch.no_grad()
    def stream(self, model: nn.Module, stream: TokenStream) -> Scored:
        """The loss of every token of the documents, each once, in their order, with the state carried along.

        A batch is of documents of about the same length: a row whose document has ended reads on in zeros, unscored.
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
        places = np.concatenate([np.arange(len(row)) for row in losses])
        return self.collected(stream, np.concatenate(losses), places)


def longest_documents(stream: TokenStream, number: int, longest: int | None) -> TokenStream:
    """The `number` longest documents in their order, each cut after `longest` tokens beside its opening one."""
    documents = documents_of(stream)
    chosen = sorted(sorted(range(len(documents)), key=lambda index: -len(documents[index]))[:number])
    return joined([documents[index][: None if longest is None else longest + 1] for index in chosen])


def by_position(stream: TokenStream, losses: np.ndarray) -> list[dict[str, Any]]:
    """The mean loss of the tokens that have fewer than 64, 128, 256, … others of their document before them.

    Of losses (N,) of all tokens of the documents but the opening ones; bins that one document does not fill are left
    out.
    """
    lengths = [len(document) for document in documents_of(stream)]
    before = np.concatenate([np.arange(1, length) for length in lengths])
    rows: list[dict[str, Any]] = []
    start, end = 0, FIRST
    while end <= min(lengths):
        inside = (start <= before) & (before < end)
        rows.append({"position": end, "loss": float(losses[inside].mean()), "tokens": int(inside.sum())})
        start, end = end, 2 * end
    return rows
