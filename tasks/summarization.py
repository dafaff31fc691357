"""Abstractive summarisation, scored by ROUGE beside simple baselines."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.base import Batch, Evaluation, device_of, random_generator
from tasks.data.pairs import Pair, sentences
from tasks.data.source import DataError
from tasks.data.text import Document
from tasks.data.tokens import DOCUMENT, END, SEPARATOR, TokenizedCorpus
from tasks.rouge import rouge

IGNORED = -100
SAMPLES = 8  # rows of the table of sample outputs


class PairSource(Protocol):
    """A source of documents with summaries."""

    name: str
    fingerprint: str

    def pairs(self, split: str) -> list[Pair]: ...


class PairTexts:
    """The texts of pairs as a corpus, for the vocabulary."""

    def __init__(self, source: PairSource):
        self.source = source
        self.name, self.fingerprint = source.name, source.fingerprint

    def documents(self, split: str) -> list[Document]:
        return [Document(pair.name, f"{pair.summary}\n{pair.document}") for pair in self.source.pairs(split)]


class Summarization:
    """Write the summary of a document.

    source_length: tokens of a document that a model reads; longer ones are cut. A model that streams can be given
    more than one with a window. summary_length: tokens of a summary at most. evaluation_documents: how many documents
    of the test split are summarised.
    A model answers two calls: `model(source, target=target)`, the logits of the target's tokens, and
    `model.answer(source, steps, end)`, the summary it writes.
    """

    def __init__(
        self,
        data: PairSource,
        seed: int,
        source_length: int,
        summary_length: int,
        batch_size: int,
        vocabulary_size: int,
        evaluation_documents: int,
        cache: str,
    ):
        self.seed, self.batch_size = seed, batch_size
        self.source_length, self.summary_length = source_length, summary_length
        self.length = source_length + summary_length - 1  # the last token of a summary is never read
        self.evaluation_documents = evaluation_documents
        self.data = data
        self.tokenizer = TokenizedCorpus(PairTexts(data), vocabulary_size, cache).tokenizer
        self.model_arguments = {"vocabulary_size": self.tokenizer.get_vocab_size()}
        pairs = data.pairs("train")
        if len(pairs) < batch_size:
            raise DataError(f"{data.name} has {len(pairs)} training pairs, fewer than task.batch_size={batch_size}")
        sources = self.encode_sources(pairs)
        targets = [[*ids, END] for ids in self.encode([pair.summary for pair in pairs], summary_length - 1)]
        # Neighbours in length share a batch, so that little of it is padding.
        order = sorted(range(len(pairs)), key=lambda index: len(sources[index]))
        self.groups = [order[i : i + batch_size] for i in range(len(order) % batch_size, len(order), batch_size)]
        self.sources, self.targets = sources, targets

    def encode_sources(self, pairs: list[Pair]) -> list[list[int]]:
        documents = self.encode([pair.document for pair in pairs], self.source_length - 2)
        return [[DOCUMENT, *ids, SEPARATOR] for ids in documents]

    def encode(self, texts: list[str], longest: int) -> list[list[int]]:
        """The first tokens of each text, at most `longest`; a few texts at a time, for an encoding is large."""
        return [
            encoding.ids[:longest]
            for start in range(0, len(texts), 128)
            for encoding in self.tokenizer.encode_batch_fast(texts[start : start + 128])
        ]

    def batch(self, step: int) -> Batch:
        epoch, place = divmod(step, len(self.groups))
        group = self.groups[random_generator(self.seed, epoch).permutation(len(self.groups))[place]]
        source = pad_left([self.sources[index] for index in group])
        target = torch.full((len(group), self.summary_length), IGNORED)
        for row, index in enumerate(group):
            target[row, : len(self.targets[index])] = torch.tensor(self.targets[index])
        return {"source": source, "target": target}

    def loss(self, model: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        target = batch["target"]
        logits, _ = model(batch["source"], target=target.clamp(min=0))
        return F.cross_entropy(logits.flatten(0, 1).float(), target.flatten(), ignore_index=IGNORED), None

    @torch.no_grad()
    def evaluate(self, model: Any) -> Evaluation:
        pairs = self.data.pairs("test")[: self.evaluation_documents]
        sources = self.encode_sources(pairs)
        written = [""] * len(pairs)
        order = sorted(range(len(pairs)), key=lambda index: len(sources[index]))
        for i in range(0, len(order), self.batch_size):
            group = order[i : i + self.batch_size]
            source = pad_left([sources[index] for index in group]).to(device_of(model))
            answers = model.answer(source, self.summary_length, end=END).tolist()
            for index, answer in zip(group, answers):
                answer = answer[: answer.index(END)] if END in answer else answer
                written[index] = self.tokenizer.decode(answer)
        references = [pair.summary for pair in pairs]
        scores = rouge(written, references)
        metrics = dict(scores)
        for name, texts in self.baselines(pairs).items():
            metrics |= {f"baseline/{name}/{score}": value for score, value in rouge(texts, references).items()}
        samples = [
            {"document": pair.document[:300], "reference": pair.summary, "summary": text}
            for pair, text in list(zip(pairs, written))[:SAMPLES]
        ]
        return Evaluation(metrics, {"samples": samples})

    def baselines(self, pairs: list[Pair]) -> dict[str, list[str]]:
        """The first sentence of each document, and one drawn at random."""
        generator = np.random.default_rng(self.seed)
        split = [sentences(pair.document) for pair in pairs]
        return {"lead": [s[0] for s in split], "random": [s[int(generator.integers(len(s)))] for s in split]}


def pad_left(rows: list[list[int]]) -> Tensor:
    """Rows of tokens as one tensor, the shorter ones filled up in front.

    Its width is a multiple of 64: torch keeps a compiled kernel for every shape it meets.
    """
    longest = -(-max(map(len, rows)) // 64) * 64
    return torch.tensor([[DOCUMENT] * (longest - len(row)) + row for row in rows])
