"""Masked language modelling, as in BERT."""

import math
from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.base import Batch, Evaluation, Reading, device_of, random_generator
from tasks.data.source import DataError, ScoredSplit
from tasks.data.tokens import Corpus, TokenizedCorpus
from tasks.ranges import Share, VocabularySize
from tasks.scoring import IGNORED, documents_with, spread

MASKED, REPLACED = 0.8, 0.1  # shares of the selected tokens; the rest are unchanged (Devlin et al. 2019, section 3.1)
EVALUATION = 1 << 32  # the random key of the evaluation's masks; no training step has this number


class MaskedLanguageModeling:
    """Predict the masked tokens of a sequence.

    length: tokens of a sequence. share: share of tokens to predict. split: of the documents in the evaluation.
    evaluation_tokens: tokens of them, spread over the documents (see `spread`); their masks are the same for every
    model, and tokens of spans that also stand in the training text are not predicted.
    """

    def __init__(
        self,
        data: Corpus,
        seed: NonNegativeInt,
        length: PositiveInt,
        batch_size: PositiveInt,
        vocabulary_size: VocabularySize,
        evaluation_tokens: PositiveInt,
        cache: str,
        share: Share = 0.15,
        split: ScoredSplit = "test",
    ):
        if not 0 < share < 1:
            raise ValueError(f"task.share must be between 0 and 1, not {share:g}")
        self.seed, self.length, self.batch_size, self.share = seed, length, batch_size, share
        self.corpus = TokenizedCorpus(data, vocabulary_size, cache)
        self.mask = self.corpus.tokenizer.get_vocab_size()  # the mask token, after those of the corpus
        self.model_arguments = {"vocabulary_size": self.mask + 1}
        self.train, test = self.corpus.stream("train").tokens, self.corpus.stream(split)
        chosen = np.flatnonzero(spread(test, evaluation_tokens, length))
        rows = len(chosen) // length
        if len(self.train) <= length or not rows:
            raise DataError(f"{data.name} has fewer tokens than one sequence of task.length={length}")
        self.test, self.places = test, chosen[: rows * length].reshape(rows, length)

    def batch(self, step: int) -> Batch:
        generator = random_generator(self.seed, step)
        starts = generator.integers(0, len(self.train) - self.length, self.batch_size)
        return self.hide(self.train[starts[:, None] + np.arange(self.length)], generator)

    def hide(self, rows: np.ndarray, generator: np.random.Generator) -> Batch:
        """Mask a share of the tokens of rows (B, length); the targets are the masked tokens, and IGNORED elsewhere."""
        tokens = rows.astype(np.int64)
        selected = generator.random(tokens.shape) < self.share
        fate = generator.random(tokens.shape)
        others = generator.integers(0, self.mask, tokens.shape)
        hidden = np.where(fate < MASKED, self.mask, np.where(fate < MASKED + REPLACED, others, tokens))
        return {
            "tokens": torch.from_numpy(np.where(selected, hidden, tokens)),
            "targets": torch.from_numpy(np.where(selected, tokens, IGNORED)),
        }

    def loss(self, model: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        logits, _ = model(batch["tokens"])
        return F.cross_entropy(logits.flatten(0, 1).float(), batch["targets"].flatten(), ignore_index=IGNORED), None

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Evaluation:
        nats, right, count = 0.0, 0, 0
        leaked = self.corpus.leaked(self.test, self.train)
        for index in range(0, len(self.places), self.batch_size):
            places = self.places[index : index + self.batch_size]
            batch = self.hide(self.test.tokens[places], random_generator(EVALUATION, index))
            targets = batch["targets"].masked_fill(torch.from_numpy(leaked[places]), IGNORED).to(device_of(model))
            logits, _ = model(batch["tokens"].to(device_of(model)))
            selected = targets != IGNORED
            nats += float(F.cross_entropy(logits[selected].float(), targets[selected], reduction="sum"))
            right += int((logits[selected].argmax(dim=-1) == targets[selected]).sum())
            count += int(selected.sum())
        if not count:
            raise DataError("all tokens that would be scored stand in the training text too")
        loss = nats / count
        metrics = {
            "masked/loss": loss,
            "masked/perplexity": math.exp(min(loss, 700.0)),
            "masked/accuracy": right / count,
        }
        kept = np.zeros(len(leaked), bool)
        kept[self.places] = ~leaked[self.places]
        metrics |= {
            "documents": float(documents_with(kept, self.test)),
            "leaked_share": 1 - kept.sum() / self.places.size,
        }
        return Evaluation(metrics)

    def readings(self, model: nn.Module) -> list[Reading]:
        return [Reading(self.batch_size, self.length, len(self.places) / self.batch_size)]
