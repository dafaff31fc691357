"""Stand-ins of the hub's data sets: as much of them as a task needs to be built, so that a plan downloads nothing."""

from functools import cache
from typing import Any

import numpy as np
import yaml

from experiments.execution import data_source
from tasks.base import random_generator
from tasks.context_extension import ContextExtension
from tasks.data.hub import fingerprint_of
from tasks.data.images import Images
from tasks.data.pairs import Pair
from tasks.data.text import Document
from tasks.data.tokens import TokenStream
from tasks.masked_language_modeling import MaskedLanguageModeling
from tasks.perplexity import Perplexity
from tasks.scoring import Scoring
from tasks.summarization import Summarization

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


def source_of(settings: str) -> Any:
    """The data source that a configuration names, or a stand-in where it lies on the hub."""
    config = yaml.safe_load(settings)
    return stand_in(settings) if config.get("identifier") and not config.get("path") else data_source(settings)


@cache
def stand_in(settings: str) -> StandIn:
    """The stand-in of these settings; whoever names the same ones shares it."""
    return StandIn(yaml.safe_load(settings))


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
    elif isinstance(task, Summarization):
        built, readings = len(task.test_pairs), task.readings
        times = min(TEST_DOCUMENTS, asked["evaluation_documents"]) / built
        setattr(  # noqa: B010, of this one task
            task, "readings", lambda model: [one._replace(times=times * one.times) for one in readings(model)]
        )


def zeros(documents: int, length: int) -> TokenStream:
    """Documents of so many tokens, none of which takes up memory."""
    return TokenStream(np.broadcast_to(np.uint16(0), (documents * length,)), np.arange(documents) * length)
