"""Tokenised corpora: a byte-level BPE tokenizer trained on the training split, and the token stream of each split."""

import io
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import tokenizers
from filelock import FileLock
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tasks.data.leakage import SPAN, leaked_tokens
from tasks.data.source import DataError, cached, fingerprint
from tasks.data.text import Document

SPECIAL = ["<document>", "<separator>", "<end>"]
DOCUMENT, SEPARATOR, END = range(len(SPECIAL))


class Corpus(Protocol):
    """A source of documents."""

    name: str
    fingerprint: str

    def documents(self, split: str) -> list[Document]: ...


class TokenStream(NamedTuple):
    """Concatenated documents, each starting with the DOCUMENT token."""

    tokens: np.ndarray  # (N,) uint16 or int32
    starts: np.ndarray  # (documents,) int64: index of each document's first token


def to_bytes(stream: TokenStream) -> bytes:
    """A stream as the content of a file that np.load reads."""
    buffer = io.BytesIO()
    np.savez(buffer, **stream._asdict())
    return buffer.getvalue()


def train_tokenizer(texts: Any, vocabulary_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer with `vocabulary_size` tokens, including the special tokens and 256 bytes."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocabulary_size < len(alphabet) + len(SPECIAL):
        raise DataError(f"task.vocabulary_size={vocabulary_size} must be at least {len(alphabet) + len(SPECIAL)}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size, special_tokens=SPECIAL, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class TokenizedCorpus:
    """A corpus in tokens. The tokenizer and the token streams are computed once and cached in `cache`."""

    def __init__(self, corpus: Corpus, vocabulary_size: int, cache: str):
        self.corpus = corpus
        self.vocabulary_size = vocabulary_size
        key = fingerprint([corpus.fingerprint, str(vocabulary_size), tokenizers.__version__])
        self.folder = Path(cache) / "tokens" / key

    @cached_property
    def tokenizer(self) -> Tokenizer:
        with self.lock():
            content = cached(self.folder / "tokenizer", self.make_tokenizer)
        tokenizer = Tokenizer.from_buffer(content)
        tokenizer.encode_special_tokens = True  # special tokens spelled out in a text are text
        return tokenizer

    def make_tokenizer(self) -> bytes:
        texts = (document.text for document in self.corpus.documents("train"))
        return train_tokenizer(texts, self.vocabulary_size).to_str().encode()

    def stream(self, split: str) -> TokenStream:
        """The tokens of a split. Raises DataError if it has no document."""
        tokenizer = self.tokenizer
        with self.lock():
            content = cached(self.folder / split, lambda: to_bytes(self.encode(tokenizer, split)))
        with np.load(io.BytesIO(content)) as stored:
            return TokenStream(stored["tokens"], stored["starts"])

    def encode(self, tokenizer: Tokenizer, split: str) -> TokenStream:
        documents = self.corpus.documents(split)
        if not documents:
            raise DataError(f"{self.corpus.name} has no document in its {split} split")
        kind = np.uint16 if self.vocabulary_size <= 2**16 else np.int32
        encoded = [
            np.array([DOCUMENT, *encoding.ids], dtype=kind)
            for start in range(0, len(documents), 64)  # a few texts at a time, because encodings are large
            for encoding in tokenizer.encode_batch_fast([d.text for d in documents[start : start + 64]])
        ]
        starts = np.cumsum([0] + [len(tokens) for tokens in encoded[:-1]])
        return TokenStream(np.concatenate(encoded), starts)

    def leaked(self, stream: TokenStream, training: np.ndarray) -> np.ndarray:
        """Which tokens of a stream, (N,) bool, are in a span that also stands in the training tokens; see leakage.py.

        The training tokens are those of this corpus. The result is cached beside them.
        """
        file = self.folder / f"leaked-{SPAN}-{fingerprint([stream.tokens.tobytes(), stream.starts.tobytes()])}"
        with self.lock():
            found = cached(file, lambda: leaked_tokens(stream.tokens, stream.starts, training).tobytes())
        return np.frombuffer(found, bool)

    @cached_property
    def token_bytes(self) -> np.ndarray:
        """The number of bytes of text of each token, (vocabulary,); 0 for special tokens."""
        lengths = np.zeros(self.tokenizer.get_vocab_size(), dtype=np.int64)
        for token, index in self.tokenizer.get_vocab().items():
            lengths[index] = 0 if token in SPECIAL else len(token)  # byte-level: one character, one byte
        return lengths

    def lock(self) -> FileLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "lock")
