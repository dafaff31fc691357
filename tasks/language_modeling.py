"""Causal language modelling: training on a corpus, and perplexity under two protocols."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.base import Batch, Evaluation, random_generator
from tasks.data.source import DataError, ScoredSplit
from tasks.data.tokens import Corpus, TokenizedCorpus, TokenStream
from tasks.ranges import VocabularySize
from tasks.scoring import AT_ONCE, Scoring, long_documents


class LanguageModeling(Scoring):
    """Predict the next token of a corpus.

    length: tokens of a training sequence. window: tokens of an evaluation window; None for `length`. carry_state: each
    row of a batch continues where it stopped in the last step, with the model's state passed along, as in
    Transformer-XL; otherwise sequences start at random positions, without a state. evaluation_tokens, stride,
    multiples: see Scoring, which scores the documents of `split`. With multiples above 1, it scores only documents that
    fill the longest window, so that all windows score the same tokens. Spans that also stand in the training text are
    not scored; the metric `leaked_share` is their share of the tokens that would be scored.
    """

    predicts_next = True

    def __init__(
        self,
        data: Corpus,
        seed: NonNegativeInt,
        length: PositiveInt,
        batch_size: PositiveInt,
        vocabulary_size: VocabularySize,
        evaluation_tokens: PositiveInt,
        stride: PositiveInt | None,
        cache: str,
        carry_state: bool = False,
        multiples: Sequence[PositiveInt] = (1,),
        window: PositiveInt | None = None,
        split: ScoredSplit = "test",
    ):
        self.window, self.stride, self.multiples = window or length, stride, multiples
        self.check_windows()
        self.seed, self.length, self.batch_size = seed, length, batch_size
        self.evaluation_tokens, self.tokens_per_batch = evaluation_tokens, min(batch_size * length, AT_ONCE)
        self.carry_state = carry_state
        self.corpus = TokenizedCorpus(data, vocabulary_size, cache)
        self.tokenizer = self.corpus.tokenizer
        self.model_arguments = {"vocabulary_size": self.tokenizer.get_vocab_size()}
        self.train, self.split = self.corpus.stream("train").tokens, split
        self.test = self.corpus.stream(split)
        if max(multiples) > 1:
            self.test = long_documents(self.test, max(multiples) * self.window)
        if len(self.train) <= length:
            raise DataError(
                f"{data.name} has {len(self.train)} training tokens, too few for task.length={length}: choose a "
                "shorter length or more data"
            )

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
        result = super().evaluate(model)
        share = 1 - self.counted(self.test).sum() / self.chosen(self.test).sum()
        return Evaluation(result.metrics | {"leaked_share": float(share)}, result.tables)

    def counted(self, stream: TokenStream) -> np.ndarray:
        """The chosen tokens that are in no span of the training text too. Raises DataError if there are none."""
        counted = self.chosen(stream) & ~self.corpus.leaked(stream, self.train)
        if not counted.any():
            raise DataError(f"all tokens of the {self.split} split that would be scored stand in the training text too")
        return counted

    def bytes_of(self, stream: TokenStream) -> np.ndarray:
        return self.corpus.token_bytes[stream.tokens]
