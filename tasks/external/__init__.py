"""The tasks put to a model that was trained elsewhere, with its own tokens: evaluations alone, nothing is trained."""

from typing import Protocol


class TextTokenizer(Protocol):
    """What the tasks ask of a model's own tokenizer.

    opening: the token that begins a text, None if the model has none. end: the one that ends it, None likewise.
    """

    opening: int | None
    end: int | None

    def encode(self, text: str) -> list[int]:
        """The tokens of a text without any special ones."""

    def encode_with_bytes(self, text: str) -> tuple[list[int], list[int]]:
        """The same, and how many bytes of the text each token stands for."""

    def source(self, tokens: list[int]) -> list[int]:
        """Tokens as the model reads them: with its special ones around."""

    def decode(self, tokens: list[int]) -> str:
        """The text of tokens without the special ones."""


def fitting(asked: int | None, limit: int | None, cap: int) -> int:
    """How many tokens to give a model: what is asked for, or the model's own context, `cap` at most."""
    return asked or min(limit or cap, cap)
