"""Abstractive summarisation, scored by ROUGE together with simple baselines."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.base import Batch, Evaluation, Reading, device_of, random_generator
from tasks.data.pairs import Pair
from tasks.data.source import DataError, ScoredSplit
from tasks.data.text import Document
from tasks.data.tokens import DOCUMENT, END, SEPARATOR, TokenizedCorpus
from tasks.extracts import extracts
from tasks.ranges import Doublings, VocabularySize
from tasks.rouge import rouge

IGNORED = -100
SAMPLES = 10  # rows of the table of sample outputs
ROWS = 16  # documents summarised at a time
CUT = 0.5  # share of the training batches whose documents are cut, so that a part of a document is nothing new
FLOORS = ("lead", "another")  # baselines that read next to nothing
MULTIPLE = 32  # sources are padded to a multiple of this, because torch caches a compiled kernel for every shape


class PairSource(Protocol):
    """A source of documents with summaries."""

    name: str
    fingerprint: str

    def pairs(self, split: str) -> list[Pair]: ...


class PairTexts:
    """The texts of pairs as a corpus, to train the tokenizer on."""

    def __init__(self, source: PairSource):
        self.source = source
        self.name, self.fingerprint = source.name, source.fingerprint

    def documents(self, split: str) -> list[Document]:
        return [Document(pair.name, f"{pair.summary}\n{pair.document}") for pair in self.source.pairs(split)]


class Vocabulary(NamedTuple):
    """A tokenizer and its special tokens: before a document, after it, after a summary, and for padding."""

    tokenizer: Tokenizer
    opening: int = DOCUMENT
    separator: int = SEPARATOR
    end: int = END
    padding: int = DOCUMENT


def pretrained_vocabulary(name: str, revision: str) -> Vocabulary:
    """The vocabulary of a pretrained model in a folder or on the hub. Raises ValueError.

    Padding, truncation and sampling, which its files may switch on, are off; special tokens in a text are text.
    """
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    except OSError as error:
        raise ValueError(f"task.tokenizer={name} cannot be loaded: {str(error).splitlines()[0]}") from error
    special = (loaded.bos_token_id, loaded.eos_token_id, loaded.eos_token_id, loaded.pad_token_id)
    if not loaded.is_fast or None in special:
        raise ValueError(f"task.tokenizer={name} must be a fast tokenizer with tokens for start, end and padding")
    tokenizer = loaded.backend_tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    for setting in {"dropout", "alpha", "nbest_size"} & {*dir(tokenizer.model)}:  # of BPE and Unigram
        setattr(tokenizer.model, setting, None)
    return Vocabulary(tokenizer, *special)


@dataclass
class Stage:
    """A stage of the training: `steps` steps on documents of at most `longest` tokens."""

    steps: PositiveInt
    longest: PositiveInt


class Summarization:
    """Generate the summary of a document.

    source_length: tokens of a document that are read; longer documents are truncated. summary_length: most tokens of a
    summary. tokens_per_batch: a batch has as many documents of similar length as fit into this number of tokens, at
    least one. stages: training starts with short documents, stage by stage, and ends with all documents. split: of the
    documents to summarise. evaluation_documents: their number. halvings: how often they are summarised again from the
    first half of source_length, a quarter and so on; half of the training batches are cut to one of these lengths.
    tokenizer, revision: of a pretrained model; None to train one with
    `vocabulary_size` tokens on the training documents.
    Models need two calls: `model(source, target=target)` returns the logits of the target tokens,
    `model.answer(source, steps, end)` the generated summary. A model may truncate the source. Beside its scores stand
    those of baselines: see tasks/extracts.py; `another` is the summary of another document, drawn from the training.
    """

    def __init__(
        self,
        data: PairSource,
        seed: NonNegativeInt,
        source_length: PositiveInt,
        summary_length: PositiveInt,
        tokens_per_batch: PositiveInt,
        stages: list[Stage],
        vocabulary_size: VocabularySize,
        evaluation_documents: PositiveInt,
        halvings: Doublings,
        cache: str,
        tokenizer: str | None = None,
        revision: str = "main",
        split: ScoredSplit = "test",
    ):
        self.seed = seed
        self.source_length, self.summary_length = source_length, summary_length
        self.length = source_length + summary_length - 1  # the last token of a summary is never read
        self.stages, self.halvings = [Stage(**stage) for stage in stages], halvings  # type: ignore[arg-type]
        self.vocabulary = (
            pretrained_vocabulary(tokenizer, revision)
            if tokenizer
            else Vocabulary(TokenizedCorpus(PairTexts(data), vocabulary_size, cache).tokenizer)
        )
        self.tokenizer = self.vocabulary.tokenizer
        self.model_arguments = {"vocabulary_size": self.tokenizer.get_vocab_size()}
        pairs, self.test_pairs = data.pairs("train"), data.pairs(split)[:evaluation_documents]
        if not pairs or not self.test_pairs:
            raise DataError(f"{data.name} has {len(pairs)} training and {len(self.test_pairs)} {split} pairs")
        self.sources, self.summaries = self.encode_sources(pairs, source_length), [pair.summary for pair in pairs]
        summaries = self.encode(self.summaries, summary_length - 1)
        self.targets = [[*ids, self.vocabulary.end] for ids in summaries]
        self.groups = self.group(tokens_per_batch)

    def group(self, tokens_per_batch: int) -> list[list[int]]:
        """The training pairs of each batch, from the shortest to the longest, so that there is little padding."""
        order = sorted(range(len(self.sources)), key=lambda index: len(self.sources[index]))
        groups: list[list[int]] = [[]]
        for index in order:
            if groups[-1] and (len(groups[-1]) + 1) * padded(len(self.sources[index])) > tokens_per_batch:
                groups.append([])
            groups[-1].append(index)
        return groups

    def encode_sources(self, pairs: list[Pair], length: int) -> list[list[int]]:
        documents = self.encode([pair.document for pair in pairs], length - 2)
        return [[self.vocabulary.opening, *ids, self.vocabulary.separator] for ids in documents]

    def encode(self, texts: list[str], longest: int) -> list[list[int]]:
        """The first tokens of each text, at most `longest`; a few texts at a time, because encodings are large."""
        return [
            encoding.ids[:longest]
            for start in range(0, len(texts), 128)
            for encoding in self.tokenizer.encode_batch_fast(texts[start : start + 128], add_special_tokens=False)
        ]

    def batch(self, step: int) -> Batch:
        generator = random_generator(self.seed, step)
        group = self.groups[generator.integers(self.groups_for(step))]
        sources = [self.sources[index] for index in group]
        if self.halvings and generator.random() < CUT:
            longest = self.source_length // 2 ** int(generator.integers(1, self.halvings + 1))
            sources = [self.cut(source, longest) for source in sources]
        target = torch.full((len(group), self.summary_length), IGNORED)
        for row, index in enumerate(group):
            target[row, : len(self.targets[index])] = torch.tensor(self.targets[index])
        return {"source": self.pad(sources), "targets": target}

    def cut(self, source: list[int], longest: int) -> list[int]:
        """The beginning of a source, `longest` tokens with the separator, as it is read in evaluation."""
        return source if len(source) <= longest else [*source[: longest - 1], self.vocabulary.separator]

    def groups_for(self, step: int) -> int:
        """The number of groups that are short enough for a step."""
        for stage in self.stages:
            if step < stage.steps:
                lengths = [len(self.sources[group[-1]]) for group in self.groups]
                return max(1, int(np.searchsorted(lengths, stage.longest, side="right")))
            step -= stage.steps
        return len(self.groups)

    def pad(self, rows: list[list[int]]) -> Tensor:
        """Rows of tokens as one tensor, padded on the left."""
        width = padded(max(map(len, rows)))
        return torch.tensor([[self.vocabulary.padding] * (width - len(row)) + row for row in rows])

    def loss(self, model: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        target = batch["targets"]
        logits, _ = model(batch["source"], target=target.clamp(min=0))
        return F.cross_entropy(logits.flatten(0, 1).float(), target.flatten(), ignore_index=IGNORED), None

    @torch.no_grad()
    def evaluate(self, model: Any) -> Evaluation:
        documents = [pair.document for pair in self.test_pairs]
        references = [pair.summary for pair in self.test_pairs]
        generated = self.summarize(model, self.source_length)
        metrics = rouge(generated, references)
        drawn = np.random.default_rng(self.seed).integers(len(self.summaries), size=len(references))
        another = {"another": [self.summaries[index] for index in drawn]}  # the form of a summary, with guessed facts
        for name, texts in (extracts(documents, references, self.seed) | another).items():
            scores = rouge(texts, references).items()
            metrics |= {f"baseline/{name}/{score}": value for score, value in scores if "/" not in score}
        metrics["over_floors"] = metrics["overall"] - max(metrics[f"baseline/{name}/overall"] for name in FLOORS)
        by_length = [{"tokens": self.source_length, "overall": metrics["overall"]}]
        for times in (2**halving for halving in range(1, self.halvings + 1)):
            part = rouge(self.summarize(model, self.source_length // times), references)["overall"]
            metrics[f"overall/{self.source_length // times}"] = part
            metrics[f"overall_gain/{times}x"] = metrics["overall"] - part
            by_length.append({"tokens": self.source_length // times, "overall": part})
        samples = [
            {"document": document[:300], "reference": reference, "summary": text}
            for document, reference, text in list(zip(documents, references, generated))[:SAMPLES]
        ]
        return Evaluation(metrics, {"samples": samples, "by_length": by_length})

    def readings(self, model: nn.Module) -> list[Reading]:
        found = []
        lengths = sorted(map(len, self.encode_sources(self.test_pairs, self.source_length)))
        for longest in (self.source_length // 2**halving for halving in range(self.halvings + 1)):
            for start in range(0, len(lengths), ROWS):
                group = lengths[start : start + ROWS]
                found.append(Reading(len(group), padded(min(group[-1], longest)), generated=self.summary_length))
        return [reading._replace(times=found.count(reading)) for reading in dict.fromkeys(found)]

    def summarize(self, model: Any, length: int) -> list[str]:
        """The summaries that the model generates from the first `length` tokens of the test documents."""
        sources = self.encode_sources(self.test_pairs, length)
        generated = [""] * len(sources)
        order = sorted(range(len(sources)), key=lambda index: len(sources[index]))
        for i in range(0, len(order), ROWS):
            group = order[i : i + ROWS]
            source = self.pad([sources[index] for index in group]).to(device_of(model))
            for index, answer in zip(group, model.answer(source, self.summary_length, self.vocabulary.end).tolist()):
                ended = answer.index(self.vocabulary.end) if self.vocabulary.end in answer else None
                generated[index] = self.tokenizer.decode(answer[:ended])
        return generated


def padded(length: int) -> int:
    """The length of a row after padding."""
    return -(-length // MULTIPLE) * MULTIPLE
