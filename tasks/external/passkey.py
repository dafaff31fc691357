"""Passkey retrieval by an external model."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt

from tasks.base import Evaluation, Measurement, device_of, random_generator
from tasks.external import TextTokenizer, context_length
from tasks.passkey import DEPTHS
from tasks.passkey_prompt import DIGITS, FILLER, INFINI, KEYS_OF

ANSWER = 8  # tokens of an answer: enough for a space and five digits in any tokenizer, and two more
LONGEST = 8192  # tokens of a prompt, unless task.evaluation_lengths is set
SHORTEST = 512


class ExternalPasskey(Measurement):
    """The prompts of Passkey in the model's own tokens; the digits are taken from the decoded answer.

    evaluation_lengths: exact number of tokens that the model reads: the prompt and all but the last token of its
    answer. None for 512, 2,048 and 8,192, up to the model's context, or that context if it is shorter. prompts: prompts
    per length and depth. tokens_per_batch: a batch has as many prompts as fit into this number of tokens. Raises
    ValueError for a length that is too short for a prompt.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        limit: int | None,
        seed: NonNegativeInt,
        evaluation_lengths: list[PositiveInt] | None,
        prompts: PositiveInt,
        tokens_per_batch: PositiveInt,
    ):
        self.tokenizer, self.seed = tokenizer, seed
        self.prompts, self.tokens_per_batch = prompts, tokens_per_batch
        longest = context_length(None, limit, LONGEST)
        lengths = [length for length in (SHORTEST, 4 * SHORTEST, 16 * SHORTEST) if length <= longest]
        self.lengths = evaluation_lengths or lengths or [longest]
        self.length = max(self.lengths)
        # Parts are encoded separately, so that they join between two tokens. Some tokenizers add the space themselves.
        adds_space = tokenizer.encode("green") + tokenizer.encode("grass") == tokenizer.encode("green grass")
        self.space = "" if adds_space else " "
        opening = [] if tokenizer.opening is None else [tokenizer.opening]
        self.introduction = [*opening, *tokenizer.encode(INFINI.introduction)]
        self.filler = np.array(self.encode(FILLER))
        self.question = self.encode(INFINI.question)
        keys = {int(key) for length in self.lengths for depth in range(len(DEPTHS)) for key in self.keys(length, depth)}
        sentence = max(len(self.sentence(key)) for key in keys)  # keys may differ in their number of tokens
        fixed = len(self.introduction) + sentence + len(self.question)
        if min(self.lengths) - ANSWER + 1 < fixed:
            raise ValueError(
                f"a passkey prompt with its answer needs at least {fixed + ANSWER - 1} tokens of this model, more than "
                f"the {min(self.lengths)} of task.evaluation_lengths"
            )

    def encode(self, text: str) -> list[int]:
        """The tokens of a part of the prompt that follows another part."""
        return self.tokenizer.encode(self.space + text)

    def sentence(self, key: int) -> list[int]:
        """The tokens of the sentence that states the key."""
        return self.encode(INFINI.sentence.format(key=key))

    def keys(self, length: int, depth: int) -> np.ndarray:
        """The keys for a length and depth, from those that Passkey never trains on."""
        return random_generator(self.seed, length, depth).choice(KEYS_OF["test"], self.prompts, replace=False)

    def prompt(self, length: int, key: int, depth: str) -> list[int]:
        """A prompt of exactly `length` tokens with the key's sentence at the start, middle or end of the filler."""
        sentence = self.sentence(key)
        space = length - len(self.introduction) - len(sentence) - len(self.question)
        before = {"start": 0, "middle": space // 2, "end": space}[depth]
        filler = np.resize(self.filler, space).tolist()
        return [*self.introduction, *filler[:before], *sentence, *filler[before:], *self.question]

    def evaluate(self, model: Any) -> Evaluation:
        rows = [
            {"length": length, "depth": depth, **self.retrieve(model, length, depth)}
            for length in self.lengths
            for depth in DEPTHS
        ]
        scores = ("digits", "exact")
        metrics = {score: float(np.mean([row[score] for row in rows])) for score in scores}
        metrics |= {f"{score}/{row['length']}/{row['depth']}": row[score] for row in rows for score in scores}
        return Evaluation(metrics, {"retrieval": rows})

    @torch.no_grad()
    def retrieve(self, model: Any, length: int, depth: str) -> dict[str, Any]:
        """The shares of correct digits and of correct keys, and the text of the first answer."""
        keys = self.keys(length, DEPTHS.index(depth))
        prompts = [self.prompt(length - ANSWER + 1, int(key), depth) for key in keys]
        rows = max(1, self.tokens_per_batch // length)
        answers: list[str] = []
        for start in range(0, len(prompts), rows):
            source = torch.tensor(prompts[start : start + rows]).to(device_of(model))
            answers += [self.tokenizer.decode(row) for row in model.answer(source, ANSWER, None).tolist()]
        return scores_of(answers, [str(key) for key in keys]) | {"prompts": len(keys), "first_answer": answers[0]}


def scores_of(answers: Sequence[str], keys: Sequence[str]) -> dict[str, float]:
    """The shares of correct digits and of correct keys, given by the first five digits in the texts of the answers."""
    named = ["".join(re.findall("[0-9]", answer))[:DIGITS] for answer in answers]
    right = [[a == b for a, b in zip(found.ljust(DIGITS), key)] for found, key in zip(named, keys, strict=True)]
    return {"digits": float(np.mean(right)), "exact": float(np.mean(np.all(right, axis=1)))}
