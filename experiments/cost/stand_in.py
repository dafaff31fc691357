"""Stand-ins of data sets: as much of them as a task needs to be built, so that a plan downloads and draws nothing."""

import itertools
import json
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import OmegaConf
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

from experiments.config.build import build, data_source
from tasks.base import Reading
from tasks.context_extension import ContextExtension
from tasks.data import glyphs, hub
from tasks.data.images import Images
from tasks.data.pairs import Pair
from tasks.data.source import fingerprint, write_atomically
from tasks.data.text import Document
from tasks.data.tokens import SPECIAL, TokenizedCorpus, TokenStream
from tasks.masked_language_modeling import MaskedLanguageModeling
from tasks.perplexity import Perplexity
from tasks.scoring import Scoring
from tasks.summarization import Summarization, padded

BOOK = 95_000  # tokens of a book of PG-19, whose 100 test books hold 6.97 million words
LENGTHS = {"chapters": 6_600, "books": 148_000}  # tokens of a BookSum document: 5,000 and 112,000 words on average
SUMMARY = 700  # tokens of a summary
TEST_DOCUMENTS = 1000  # with summaries, at most so many of which are written
TRAINED, BUILT = 16, 4  # documents with summaries that a task is built with: those of a batch, and some to be written
GENERATED = 600  # chronicles of all lengths that stand for all of them
FREQUENT = range(200, 400)  # the tokens that texts are made of
IMAGES = {"train": 1_000, "test": 10_000}  # of CIFAR; of its 50,000 training images little depends on the number
CLASSES = {"cifar10": 10, "cifar100": 100}
CHECKPOINT_VOCABULARY = 50_265  # tokens of BART, which PRIMERA shares


class Named(NamedTuple):
    """A data set of the hub as a plan of a run knows it: by what tells its contents."""

    fingerprint: str


class StandIn:
    """A data set in its shapes, by the settings that a configuration gives it.

    Its texts are its own, and so are its tokens: they are not to be found where those of the data are kept.
    """

    name = "stand-in"
    fingerprint = fingerprint([Path(__file__).read_text()])

    def __init__(self, settings: dict[str, Any]):
        self.settings = settings

    def text(self, tokens: int) -> str:
        return " ".join(map(str, itertools.islice(itertools.cycle(FREQUENT), tokens)))

    def documents(self, split: str) -> list[Document]:
        return [Document(f"{split}/{index}", self.text(BOOK)) for index in range(2)]

    def pairs(self, split: str) -> list[Pair]:
        text, summary = self.text(LENGTHS.get(self.settings["configuration"], BOOK)), self.text(SUMMARY)
        return [Pair(f"{split}/{index}", text, summary) for index in range(TRAINED if split == "train" else BUILT)]

    def images(self, split: str) -> Images:
        count = self.settings.get(f"{split}_size", IMAGES[split])
        classes = CLASSES.get(self.settings.get("identifier", "").rpartition("/")[2], len(glyphs.CLASSES))
        pixels = np.broadcast_to(np.uint8(0), (count, 3, glyphs.SIDE, glyphs.SIDE))
        return Images(pixels, np.arange(count) % classes)

    def keep_tokenizer(self, size: int, cache: str) -> None:
        """Lay a vocabulary of so many numbers where a task looks for the one of its texts."""
        tokens = SPECIAL + [str(number) for number in range(len(SPECIAL), size)]
        tokenizer = Tokenizer(models.WordLevel({token: place for place, token in enumerate(tokens)}, tokens[-1]))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        write_atomically(TokenizedCorpus(self, size, cache).folder / "tokenizer.json", tokenizer.to_str().encode())


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
    """The data source that a configuration names, of one that lies on the hub its fingerprint alone."""
    config = json.loads(settings)
    if not on_hub(config):
        return data_source(settings)
    return Named(hub.fingerprint_of(config["identifier"], config.get("configuration"), config.get("revision")))


def on_hub(settings: dict[str, Any]) -> bool:
    """Whether a data source would be downloaded."""
    return bool(settings.get("identifier") and not settings.get("path"))


@lru_cache(maxsize=1)  # of the models of a task one after the other
def task_of(data_settings: str, task_settings: str) -> Any:
    """The task, as JSON, with its data, or with as much as its shapes ask for of what is downloaded or made slowly."""
    data, settings = json.loads(data_settings), json.loads(task_settings)
    if not data:
        return build(OmegaConf.create(settings))
    kind = data["_target_"].rpartition(".")[2]
    if on_hub(data) or kind == "Glyphs":
        source: Any = StandIn(data)
        if "vocabulary_size" in settings:
            source.keep_tokenizer(settings["vocabulary_size"], settings["cache"])
    elif kind == "Chronicles":
        source = data_source(json.dumps(data | {"documents": min(data["documents"], GENERATED)}))
    else:
        return build(OmegaConf.create(settings), data=data_source(data_settings))
    few = {"_target_": f"{__name__}.FewTexts"} if settings["_target_"].endswith(".Summarization") else {}
    task = build(OmegaConf.create(settings | few), data=source)
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
