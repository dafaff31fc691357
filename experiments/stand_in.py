"""Stand-ins of the hub's data sets: as much of them as a task needs to be built, so that a plan downloads nothing."""

import json
from functools import cache
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from experiments.execution import build, data_source
from tasks.base import Reading, random_generator
from tasks.context_extension import ContextExtension
from tasks.data.hub import fingerprint_of
from tasks.data.images import Images
from tasks.data.pairs import Pair
from tasks.data.text import Document
from tasks.data.tokens import TokenStream
from tasks.masked_language_modeling import MaskedLanguageModeling
from tasks.perplexity import Perplexity
from tasks.scoring import Scoring
from tasks.summarization import Summarization, padded

BOOK = 95_000  # tokens of a book of PG-19, whose 100 test books hold 6.97 million words
WORDS = {"chapters": 5_000, "books": 112_000}  # of a BookSum document, on average
TEST_DOCUMENTS = 1000  # with summaries, at most so many of which are written
TRAINED, BUILT = 16, 4  # documents with summaries that a task is built with: those of a batch, and some to be written
SUMMARY = 4_000  # letters
FREQUENT = 200  # words that texts are made of
TEST_IMAGES, TRAIN_IMAGES = 10_000, 1_000  # the training images are 50,000, and only their number is counted
LETTERS = list("abcdefghijklmnopqrstuvwxyz")
CHECKPOINT_VOCABULARY = 50_265  # tokens of BART, which PRIMERA shares


class StandIn:
    """A data set of the hub in its shapes, by the names that a configuration gives it."""

    def __init__(self, settings: dict[str, Any]):
        self.name, self.configuration = settings["identifier"], settings.get("configuration")
        self.fingerprint = fingerprint_of(self.name, self.configuration, settings.get("revision"))
        self.classes = 100 if self.name.endswith("100") else 10

    @cache  # noqa: B019, of the few that live as long as the program
    def vocabulary(self) -> list[str]:
        """More words than any vocabulary here has tokens."""
        return ["".join(letters) for letters in random_generator(0).choice(LETTERS, (40_000, 6)).tolist()]

    def text(self, count: int) -> str:
        """A text of so many words, few of them different, which are quick to encode."""
        words = self.vocabulary()[:FREQUENT]
        return " ".join(words * -(-count // FREQUENT))[: 7 * count]

    def documents(self, split: str) -> list[Document]:
        everything = [Document("train/words", " ".join(self.vocabulary()))] if split == "train" else []
        return [*everything, *(Document(f"{split}/{index}", self.text(BOOK)) for index in range(2))]

    def pairs(self, split: str) -> list[Pair]:
        text = self.text(WORDS.get(self.configuration or "", WORDS["chapters"]))
        words = " ".join(self.vocabulary())
        everything = [Pair("train/words", words, text[:SUMMARY])] if split == "train" else []
        count = TRAINED if split == "train" else BUILT
        return [*everything, *(Pair(f"{split}/{index}", text, text[:SUMMARY]) for index in range(count))]

    def images(self, split: str) -> Images:
        count = TEST_IMAGES if split == "test" else TRAIN_IMAGES
        return Images(np.zeros((count, 3, 32, 32), np.uint8), np.arange(count) % self.classes)


class FewTexts(Summarization):
    """Summarization of a stand-in's documents, which repeat few texts: each is encoded once.

    written: how many documents are summarised, however many there are.
    """

    written: int

    @cache  # noqa: B019, of the few that live as long as the program
    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode(self, texts: list[str], longest: int) -> list[list[int]]:
        return [self.ids(text)[:longest] for text in texts]

    def pad(self, rows: list[list[int]]) -> Tensor:
        return torch.zeros(len(rows), padded(max(map(len, rows))), dtype=torch.long)  # of which only the shape counts

    def readings(self, model: nn.Module) -> list[Reading]:
        share = self.written / len(self.test_pairs)
        return [one._replace(times=share * one.times) for one in super().readings(model)]


@cache
def source_of(settings: str) -> Any:
    """The data source that a configuration names, or a stand-in where it lies on the hub."""
    config = json.loads(settings)
    return StandIn(config) if config.get("identifier") and not config.get("path") else data_source(settings)


def task_of(data: dict[str, Any] | None, settings: dict[str, Any]) -> Any:
    """The task with its data, or with as much of it as a stand-in has."""
    source = source_of(json.dumps(data)) if data else None
    known = {} if source is None else {"data": source}
    if not isinstance(source, StandIn):
        return build(OmegaConf.create(settings), **known)
    few = {"_target_": f"{__name__}.FewTexts"} if settings["_target_"].endswith(".Summarization") else {}
    task = build(OmegaConf.create(settings | few), **known)
    fill(task, settings)
    return task


def without_checkpoint(config: dict[str, Any]) -> dict[str, Any]:
    """The same configuration with a model of the checkpoint's sizes, which is loaded from nowhere."""
    if not config["model"].get("checkpoint"):
        return config
    vocabulary = {"tokenizer": None, "vocabulary_size": CHECKPOINT_VOCABULARY}
    return config | {"model": config["model"] | {"checkpoint": None}, "task": config["task"] | vocabulary}


def fill(task: Any, asked: dict[str, Any]) -> None:
    """Let a task that was built with a stand-in hold as much for its evaluation as its settings ask for."""
    if isinstance(task, Perplexity):
        count, longest = asked["evaluation_documents"], asked["longest"] or BOOK
        task.test = zeros(count, min(longest, BOOK) + 1)
        task.evaluation_tokens = len(task.test.tokens)
    elif isinstance(task, MaskedLanguageModeling):
        task.test = np.broadcast_to(task.test[:1], (asked["evaluation_tokens"] // task.length, task.length))
    elif isinstance(task, Scoring):
        task.test = zeros(-(-asked["evaluation_tokens"] // BOOK), BOOK + 1)
    elif isinstance(task, ContextExtension):
        fill(task.judged_text, asked)
    elif isinstance(task, FewTexts):
        task.written = min(TEST_DOCUMENTS, asked["evaluation_documents"])


def zeros(documents: int, length: int) -> TokenStream:
    """Documents of so many tokens, none of which takes up memory."""
    return TokenStream(np.broadcast_to(np.uint16(0), (documents * length,)), np.arange(documents) * length)
