"""The prompts of passkey retrieval: a number in a long, irrelevant text, at an exact length in tokens."""

import re
from typing import NamedTuple

import numpy as np

DIGITS = 5
ANSWERED = DIGITS - 1  # digits of its answer that a model has read when it generates the last one
KEYS = np.arange(10 ** (DIGITS - 1), 10**DIGITS)
GROUP = (KEYS * 2_654_435_761 % 2**32) % 10  # tenths of the keys, evenly spread; two are never trained on
KEYS_OF = {"test": KEYS[GROUP == 0], "validation": KEYS[GROUP == 1], "train": KEYS[GROUP > 1]}

FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


class Wording(NamedTuple):
    """The wording of a prompt: introduction, filler, sentence with the key, filler, question."""

    introduction: str
    sentence: str
    question: str
    restarts: bool  # whether the filler restarts after the key


INFINI = Wording(  # Munkhdalai et al. 2024, appendix B (with its misprint "There and ack again" corrected)
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there.",
    "The pass key is {key}. Remember it. {key} is the pass key.",
    "What is the pass key? The pass key is",
    restarts=False,
)
# Mohtashami & Jaggi 2023: the same sentences, each on its own line. Their filler is cut at a character, ours at a word;
# their keys have one to five digits, ours five.
LANDMARK = Wording(INFINI.introduction + "\n", f"\n{INFINI.sentence}\n", "\n" + INFINI.question, restarts=True)
WORDINGS = {"infini": INFINI, "landmark": LANDMARK}


def words(text: str) -> list[str]:
    """The words, punctuation marks, line breaks and single digits of a text."""
    return re.findall(r"\d|\w+|[^\w\s]|\n", text)


class Prompts:
    """Prompts in word-level tokens, with one token per digit of the key.

    first_token: the id of the first token; smaller ids belong to another vocabulary.
    """

    def __init__(self, wording: Wording, first_token: int = 0):
        self.wording = wording
        vocabulary = sorted({*words("".join([*wording[:3], FILLER]).replace("{key}", " ")), *"0123456789"})
        self.identifiers = {word: first_token + index for index, word in enumerate(vocabulary)}
        self.introduction = self.encode(wording.introduction)
        self.filler = self.encode(FILLER)
        self.question = self.encode(wording.question)
        self.sentence_length = len(self.sentence(KEYS[0]))
        self.fixed = len(self.introduction) + self.sentence_length + len(self.question)
        self.after_key = len(words(wording.sentence.rpartition("{key}")[2]))  # tokens of the sentence after its key

    def encode(self, text: str) -> np.ndarray:
        """The tokens of the words of a text."""
        return np.array([self.identifiers[word] for word in words(text)])

    def decode(self, tokens: np.ndarray) -> str:
        """The words of tokens; what is no word of a prompt is left out."""
        known = {token: word for word, token in self.identifiers.items()}
        return " ".join(known[token] for token in tokens.tolist() if token in known)

    def sentence(self, key: int) -> np.ndarray:
        """The tokens of the sentence that states the key."""
        return self.encode(self.wording.sentence.format(key=key))

    def prompt(self, length: int, key: int, depth: int) -> np.ndarray:
        """A prompt of exactly `length` tokens, with `depth` tokens of filler before the sentence with the key."""
        filler = np.resize(self.filler, length - self.fixed)
        rest = filler[: len(filler) - depth] if self.wording.restarts else filler[depth:]
        return np.concatenate([self.introduction, filler[:depth], self.sentence(key), rest, self.question])
