"""Synthetic data in the shapes of the data sets, so that an estimate downloads, tokenizes and draws nothing."""

import json
from functools import cache, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from experiments.config.build import build, data_source
from tasks.data import glyphs, hub
from tasks.data.images import Images
from tasks.data.pairs import Pair
from tasks.data.source import SPLITS, cached, fingerprint
from tasks.data.text import Document
from tasks.data.tokens import SPECIAL, TokenizedCorpus, TokenStream, to_bytes

BOOK = 95_000  # tokens of a book of PG-19, whose 100 test books hold 6.97 million words
LENGTHS = {"chapters": 6_600, "books": 148_000}  # tokens of a BookSum document: 5,000 and 112,000 words on average
SUMMARY = 700  # tokens of a summary
PAIRS = {"train": 16, "test": 4}  # documents with summaries: those of a batch, and some to be summarised
GENERATED = 600  # chronicles of all lengths that stand for all of them
IMAGES = {"train": 50_000, "test": 10_000}  # of CIFAR
CLASSES = {"uoft-cs/cifar10": 10, "uoft-cs/cifar100": 100}
CHECKPOINT_VOCABULARY = 50_265  # tokens of BART, which PRIMERA shares


@cache
def source_of(settings: str) -> Any:
    """The data source that a configuration, as JSON, names; of one that would be downloaded its fingerprint alone."""
    config = json.loads(settings)
    if not config.get("identifier") or config.get("path"):
        return data_source(settings)
    known = hub.fingerprint_of(
        config["identifier"], config.get("configuration"), config.get("revision"), config.get("files") or ()
    )
    return SimpleNamespace(fingerprint=known)


class SyntheticData:
    """A data set by the settings that a configuration gives it. Its fingerprint, and so its tokens, are its own."""

    name = "synthetic"
    fingerprint = fingerprint([Path(__file__).read_bytes()])

    def __init__(self, settings: dict[str, Any]):
        self.settings = settings

    def documents(self, split: str) -> list[Document]:
        return [Document(f"{split}/0", "0 " * BOOK)]

    def pairs(self, split: str) -> list[Pair]:
        text = "0 " * (self.settings.get("longest") or LENGTHS.get(self.settings["configuration"], BOOK))
        return [Pair(f"{split}/{index}", text, "0 " * SUMMARY) for index in range(PAIRS.get(split, PAIRS["test"]))]

    def images(self, split: str) -> Images:
        count = self.settings.get(f"{split}_size", IMAGES[split])
        classes = CLASSES.get(self.settings.get("identifier", ""), len(glyphs.CLASSES))
        pixels = np.broadcast_to(np.uint8(0), (count, 3, glyphs.SIDE, glyphs.SIDE))
        return Images(pixels, np.arange(count) % classes)

    def tokenize(self, vocabulary_size: int, books: int, cache: str) -> None:
        """Write a vocabulary of numbers, and books in it, where a task looks for those of its corpus."""
        folder = TokenizedCorpus(self, vocabulary_size, cache).folder  # type: ignore[arg-type]
        words = [*SPECIAL, *map(str, range(vocabulary_size - len(SPECIAL)))]
        tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, words[-1]))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        cached(folder / "tokenizer", lambda: tokenizer.to_str().encode())
        stream = to_bytes(TokenStream(np.zeros(books * BOOK, np.uint16), np.arange(books) * BOOK))
        for split in SPLITS:
            cached(folder / split, lambda: stream)


@lru_cache(maxsize=2)  # the models of a task are looked at one after the other
def task_of(data_settings: str, task_settings: str) -> Any:
    """The task of a configuration, as JSON, with synthetic data; no file is left behind."""
    data, settings = json.loads(data_settings), json.loads(task_settings)
    kind = data.get("_target_", "").rpartition(".")[2]
    if not data:
        return build(settings)
    with TemporaryDirectory() as cache:
        settings |= {"cache": cache} if "cache" in settings else {}
        if kind in ("Chronicles", "Digits", "Docstrings"):  # which are there, or quickly made
            return build(settings, data=build(data | {"documents": GENERATED} if kind == "Chronicles" else data))
        if "vocabulary_size" in settings:
            count = max(-(-settings.get("evaluation_tokens", 0) // BOOK), settings.get("evaluation_documents", 1))
            SyntheticData(data).tokenize(settings["vocabulary_size"], count, cache)
        return build(settings, data=SyntheticData(data))


def without_checkpoint(config: dict[str, Any]) -> dict[str, Any]:
    """The same configuration with a model of the checkpoint's sizes, which is loaded from nowhere."""
    if not config["model"].get("checkpoint"):
        return config
    vocabulary = {"tokenizer": None, "vocabulary_size": CHECKPOINT_VOCABULARY}
    return config | {"model": config["model"] | {"checkpoint": None}, "task": config["task"] | vocabulary}
