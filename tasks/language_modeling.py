"""Causal language modelling and perplexity by two protocols."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.base import Batch, Evaluation, device_of, random_generator
from tasks.data.source import DataError
from tasks.data.tokens import Corpus, TokenizedCorpus, TokenStream

IGNORED = -100


class LanguageModeling:
    """Predict the next token of a corpus.

    length: tokens of a training sequence and of an evaluation window.
    carry_state: every row of the batch reads on where it stopped a step ago, with the model's state carried along, as
    Transformer-XL is trained; otherwise sequences start anywhere and know nothing before them.
    evaluation_tokens: how many tokens of the test split are scored. stride: how many the sliding protocol scores a
    window, every one of them with at least length - stride tokens of context.
    """

    def __init__(
        self,
        data: Corpus,
        seed: int,
        length: int,
        batch_size: int,
        vocabulary_size: int,
        evaluation_tokens: int,
        stride: int,
        cache: str,
        carry_state: bool = False,
    ):
        if not 0 < stride <= length:
            raise ValueError(f"task.stride must be from 1 to task.length={length}, not {stride}")
        self.seed, self.length, self.batch_size, self.stride = seed, length, batch_size, stride
        self.evaluation_tokens = evaluation_tokens
        self.carry_state = carry_state
        self.corpus = TokenizedCorpus(data, vocabulary_size, cache)
        self.model_arguments = {"vocabulary_size": self.corpus.tokenizer.get_vocab_size()}
        self.train = self.corpus.stream("train").tokens
        if len(self.train) <= length:
            raise DataError(f"{data.name} has {len(self.train)} training tokens; task.length={length} needs more")

    def batch(self, step: int) -> Batch:
        if self.carry_state:
            starts = random_generator(self.seed).integers(0, len(self.train), self.batch_size) + step * self.length
        else:
            starts = random_generator(self.seed, step).integers(0, len(self.train) - self.length, self.batch_size)
        rows = (starts[:, None] + np.arange(self.length + 1)) % len(self.train)
        tokens = torch.from_numpy(self.train[rows].astype(np.int64))
        return {"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}

    def loss(self, model: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        logits, state = model(batch["tokens"], state)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), batch["targets"].flatten())
        return loss, state if self.carry_state else None

    def evaluate(self, model: nn.Module) -> Evaluation:
        stream = self.corpus.stream("test")
        result = Evaluation()
        protocol = []
        for name, stride in (("nonoverlapping", self.length), ("sliding", self.stride)):
            nats, tokens, size = self.score(model, stream, stride)
            result.metrics |= {
                f"{name}/loss": nats / tokens,
                f"{name}/perplexity": math.exp(min(nats / tokens, 700.0)),
                f"{name}/bits_per_byte": nats / math.log(2) / size,
            }
            protocol.append(
                {"protocol": name, "window": self.length, "stride": stride, "tokens": tokens, "bytes": size}
            )
        result.tables["protocol"] = protocol
        return result

    @torch.no_grad()
    def score(self, model: nn.Module, stream: TokenStream, stride: int) -> tuple[float, int, int]:
        """The summed loss in nats, and the tokens and bytes it is the loss of: every token of a document once."""
        device, nats, tokens, size = device_of(model), 0.0, 0, 0
        for inputs, targets in self.windows(stream, stride):
            logits, _ = model(inputs.to(device))
            losses = F.cross_entropy(
                logits.flatten(0, 1).float(), targets.flatten().to(device), ignore_index=IGNORED, reduction="sum"
            )
            scored = targets[targets != IGNORED].numpy()
            nats += float(losses)
            tokens += len(scored)
            size += int(self.corpus.token_bytes[scored].sum())
        return nats, tokens, size

    def windows(self, stream: TokenStream, stride: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of windows (B, length) with their targets, IGNORED where another window scores the token.

        A document's first window scores all of its tokens, each later one the `stride` tokens after those scored.
        """
        pieces: list[tuple[int, int, int]] = []  # start, end, first target scored
        budget = self.evaluation_tokens
        for start, end in zip(stream.starts, [*stream.starts[1:], len(stream.tokens)]):
            last = min(end - 1, start + budget)  # the document's own opening token is given, not scored
            scored = start
            while scored < last:
                stop = min(last, scored + (self.length if scored == start else stride))
                first = start if scored == start else scored + stride - self.length
                pieces.append((max(start, first), stop, scored))
                scored = stop
            budget -= last - start
            if budget <= 0:
                break
        for index in range(0, len(pieces), self.batch_size):
            group = pieces[index : index + self.batch_size]
            inputs = torch.zeros(len(group), max(stop - first for first, stop, _ in group), dtype=torch.long)
            targets = torch.full_like(inputs, IGNORED)
            for row, (first, stop, scored) in enumerate(group):
                tokens = torch.from_numpy(stream.tokens[first : stop + 1].astype(np.int64))
                inputs[row, : stop - first] = tokens[:-1]
                targets[row, scored - first : stop - first] = tokens[1 + scored - first :]
            yield inputs, targets
