"""Summaries by an external model."""

from itertools import groupby
from typing import Any

import torch
from pydantic import NonNegativeInt, PositiveInt

from tasks.base import Evaluation, Measurement, device_of
from tasks.data.source import DataError
from tasks.external import TextTokenizer, context_length
from tasks.extracts import extracts
from tasks.rouge import rouge
from tasks.summarization import SAMPLES, PairSource

LONGEST_SOURCE = 4096  # tokens, unless task.source_length is set
AFTER = "\n\nSummary:"


class ExternalSummarization(Measurement):
    """Summaries of test documents, scored by ROUGE together with simple baselines.

    encoder: whether the model reads the document with an encoder; a decoder reads document and summary as one text.
    before, after: the prompt's text around a document, such as T5's "summarize: "; an `after` of None is
    "\\n\\nSummary:" for a decoder and empty for an encoder. source_length: tokens of the prompt, to which the document
    is truncated; None for the model's context, up to 4,096, for a decoder minus the summary. summary_length: most
    tokens of a summary. Raises DataError without test documents, ValueError if the prompt leaves no space for a
    document.
    """

    def __init__(
        self,
        data: PairSource,
        tokenizer: TextTokenizer,
        limit: int | None,
        encoder: bool,
        seed: NonNegativeInt,
        source_length: PositiveInt | None,
        summary_length: PositiveInt,
        evaluation_documents: PositiveInt,
        batch_size: PositiveInt,
        before: str,
        after: str | None,
    ):
        self.tokenizer, self.encoder, self.seed, self.batch_size = tokenizer, encoder, seed, batch_size
        read_back = 0 if encoder else summary_length - 1  # the last token of a summary is never read
        self.source_length = source_length or context_length(None, limit, LONGEST_SOURCE) - read_back
        self.summary_length = summary_length
        self.length = max(self.source_length + read_back, summary_length)
        self.before = tokenizer.encode(before)
        self.after = tokenizer.encode(after if after is not None else "" if encoder else AFTER)
        self.pairs = data.pairs("test")[:evaluation_documents]
        if not self.pairs:
            raise DataError(f"{data.name} has no test documents with summaries")
        self.room = self.source_length - len(self.prompt([]))
        if self.room < 1:
            raise ValueError(f"task.source_length={self.source_length} leaves no space for a document in the prompt")

    def prompt(self, document: list[int]) -> list[int]:
        """The prompt for a document, in tokens."""
        tokens = [*self.before, *document, *self.after]
        if self.encoder:
            return self.tokenizer.source(tokens)
        return tokens if self.tokenizer.opening is None else [self.tokenizer.opening, *tokens]

    @torch.no_grad()
    def evaluate(self, model: Any) -> Evaluation:
        prompts = [self.prompt(self.tokenizer.encode(pair.document)[: self.room]) for pair in self.pairs]
        generated = [""] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        for _, same in groupby(order, key=lambda index: len(prompts[index])):  # equal lengths: no padding
            group = list(same)
            for start in range(0, len(group), self.batch_size):
                rows = group[start : start + self.batch_size]
                source = torch.tensor([prompts[index] for index in rows]).to(device_of(model))
                for index, answer in zip(rows, model.answer(source, self.summary_length, self.tokenizer.end).tolist()):
                    generated[index] = self.text(answer)
        documents, references = [pair.document for pair in self.pairs], [pair.summary for pair in self.pairs]
        metrics = dict(rouge(generated, references))
        for name, texts in extracts(documents, references, self.seed).items():
            scores = rouge(texts, references).items()
            metrics |= {f"baseline/{name}/{score}": value for score, value in scores if "/" not in score}
        samples = [
            {"document": pair.document[:300], "reference": pair.summary, "summary": text}
            for pair, text in list(zip(self.pairs, generated))[:SAMPLES]
        ]
        return Evaluation(metrics, {"samples": samples})

    def text(self, answer: list[int]) -> str:
        """The text of an answer up to its end token."""
        end = self.tokenizer.end
        return self.tokenizer.decode(answer[: answer.index(end)] if end in answer else answer).strip()
