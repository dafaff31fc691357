"""Passkey retrieval: find a number again that was named once in a long, irrelevant text."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.base import Batch, Evaluation, device_of, random_generator

# The prompt of Munkhdalai et al. 2024, appendix B (with its misprint "There and ack again" mended).
INTRODUCTION = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there."
)
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
SENTENCE = "The pass key is {key}. Remember it. {key} is the pass key."
QUESTION = "What is the pass key? The pass key is"
DIGITS = 5
ANSWERED = DIGITS - 1  # digits of the answer that a model has read when it names the last one
DEPTHS = ("start", "middle", "end")

KEYS = np.arange(10 ** (DIGITS - 1), 10**DIGITS)
HELD_OUT = (KEYS * 2_654_435_761 % 2**32) % 10 == 0  # a tenth of all keys, spread evenly, is never trained on


@dataclass
class Stage:
    """A part of the training: for `steps` steps, prompts of `shortest` segments, doubled up to `doublings` times."""

    steps: int
    shortest: int
    doublings: int


def words(text: str) -> list[str]:
    """The words, punctuation marks and single digits of a text."""
    return re.findall(r"\d|\w+|[^\w\s]", text)


class Passkey:
    """Prompts of an exact length in word-level tokens, the key in single digits, its depth uniform in tokens.

    segment_length: unit of lengths, and what "within the last segment" means. A length counts the digits of the answer
    that a model reads back, so that answering does not open a new segment.
    tokens_per_batch: a batch holds as many prompts as fit into it. stages: what is trained on, one after the other.
    language_weight: what predicting the prompt itself counts beside predicting the answer.
    evaluation_lengths: prompt lengths in tokens, each asked `prompts` times at every depth: the key at the start, in
    the middle, and at the end, inside the last segment. first_token: the token of the first word; those before it are
    another vocabulary's.
    """

    def __init__(
        self,
        seed: int,
        segment_length: int,
        tokens_per_batch: int,
        stages: list[Stage],
        language_weight: float,
        evaluation_lengths: list[int],
        prompts: int,
        first_token: int = 0,
    ):
        vocabulary = sorted({*words(INTRODUCTION + FILLER + SENTENCE.format(key=" ") + QUESTION), *"0123456789"})
        self.identifiers = {word: first_token + index for index, word in enumerate(vocabulary)}
        self.model_arguments = {"vocabulary_size": len(vocabulary)}
        self.seed, self.segment_length, self.tokens_per_batch = seed, segment_length, tokens_per_batch
        self.stages = [Stage(**stage) for stage in stages]  # type: ignore[arg-type]
        self.language_weight, self.prompts = language_weight, prompts
        self.evaluation_lengths = evaluation_lengths
        trained = [segment_length * stage.shortest * 2**stage.doublings for stage in self.stages]
        self.length = max(trained + evaluation_lengths)
        self.introduction = self.encode(INTRODUCTION)
        self.filler = self.encode(FILLER)
        self.question = self.encode(QUESTION)
        self.fixed = len(self.introduction) + len(self.encode(SENTENCE.format(key=10_000))) + len(self.question)
        shortest = min([stage.shortest * segment_length for stage in self.stages] + evaluation_lengths) - ANSWERED
        if shortest < self.fixed:
            raise ValueError(f"a passkey prompt needs at least {self.fixed} tokens and is asked for {shortest}")

    def encode(self, text: str) -> np.ndarray:
        """The token of each word."""
        return np.array([self.identifiers[word] for word in words(text)])

    def prompt(self, length: int, key: int, depth: int) -> np.ndarray:
        """A prompt of exactly `length` tokens, with `depth` tokens of filler before the sentence with the key."""
        filler = np.resize(self.filler, length - self.fixed)
        sentence = self.encode(SENTENCE.format(key=key))
        return np.concatenate([self.introduction, filler[:depth], sentence, filler[depth:], self.question])

    def batch(self, step: int) -> Batch:
        generator = random_generator(self.seed, step)
        stage = self.stage(step)
        length = self.segment_length * stage.shortest * 2 ** int(generator.integers(stage.doublings + 1))
        rows = max(1, self.tokens_per_batch // length)
        keys = generator.choice(KEYS[~HELD_OUT], rows)
        length -= ANSWERED
        depths = generator.integers(0, length - self.fixed + 1, rows)
        prompts = np.stack([self.prompt(length, key, depth) for key, depth in zip(keys, depths)])
        answers = np.stack([self.encode(str(key)) for key in keys])
        return {"prompt": torch.from_numpy(prompts), "answer": torch.from_numpy(answers)}

    def stage(self, step: int) -> Stage:
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

    def loss(self, model: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        tokens = torch.cat([batch["prompt"], batch["answer"]], dim=1)
        logits, _ = model(tokens[:, :-1])
        losses = F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none")
        losses = losses.view(len(tokens), -1)
        return losses[:, -DIGITS:].mean() + self.language_weight * losses[:, :-DIGITS].mean(), None

    def evaluate(self, model: nn.Module) -> Evaluation:
        rows = [
            {"length": length, "depth": depth, **self.retrieve(model, length, depth)}
            for length in self.evaluation_lengths
            for depth in DEPTHS
        ]
        scores = ("digits", "exact")
        metrics = {f"{score}/{row['length']}/{row['depth']}": row[score] for row in rows for score in scores}
        longest = max(self.evaluation_lengths)
        for name, chosen in {
            "through_memory": [row for row in rows if not row["last_segment"]],
            "through_memory_longest": [row for row in rows if not row["last_segment"] and row["length"] == longest],
            "last_segment": [row for row in rows if row["last_segment"]],
        }.items():
            for score in scores if chosen else ():
                metrics[f"{name}/{score}"] = float(np.mean([row[score] for row in chosen]))
        return Evaluation(metrics, {"retrieval": rows})

    @torch.no_grad()
    def retrieve(self, model: Any, length: int, depth: str) -> dict[str, Any]:
        """The share of digits and of whole keys named right, over prompts with keys that were never trained on."""
        rows = max(1, 4 * self.tokens_per_batch // length)
        length -= ANSWERED
        space = length - self.fixed
        place = {"start": 0, "middle": space // 2, "end": space}[depth]
        generator = random_generator(self.seed, length, DEPTHS.index(depth))
        keys = generator.choice(KEYS[HELD_OUT], self.prompts, replace=False)
        answers = np.stack([self.encode(str(key)) for key in keys])
        prompts = np.stack([self.prompt(length, key, place) for key in keys])
        named = [
            model.answer(torch.from_numpy(prompts[i : i + rows]).to(device_of(model)), DIGITS).cpu().numpy()
            for i in range(0, len(prompts), rows)
        ]
        right = np.concatenate(named) == answers
        key_ends = length - len(self.question) - (space - place) - len(words(" is the pass key.")) - 1
        return {
            "digits": float(right.mean()),
            "exact": float(right.all(axis=1).mean()),
            "last_segment": key_ends // self.segment_length == (length - 1) // self.segment_length,
            "prompts": len(keys),
        }
