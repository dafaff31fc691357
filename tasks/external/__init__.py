"""Evaluation of external models on the same tasks, with the models' own tokenizers; nothing is trained."""

from typing import Protocol


class TextTokenizer(Protocol):
    """The interface of a model's own tokenizer.

    opening: the token at the start of a text; end: the token at its end. None if the model has no such token.
    """

    opening: int | None
    end: int | None

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without special tokens."""

    def encode_with_bytes(self, text: str) -> tuple[list[int], list[int]]:
        """The tokens of a text, without special tokens, and the number of bytes of each."""

    def source(self, tokens: list[int]) -> list[int]:
        """Tokens as the model reads them, with its special tokens around them."""

    def decode(self, tokens: list[int]) -> str:
        """The text of tokens; special tokens are skipped."""


def context_length(requested: int | None, limit: int | None, cap: int) -> int:
    """The context length to use, in tokens: the requested one, or the model's own limit, at most `cap`."""
    return requested or min(limit or cap, cap)
