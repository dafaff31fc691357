"""Passkey retrieval: recall a number that occurs once in a long, irrelevant text."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from tasks.base import Batch, Evaluation, Reading, device_of, random_generator
from tasks.data.source import ScoredSplit
from tasks.passkey_prompt import ANSWERED, DIGITS, KEYS_OF, WORDINGS, Prompts, words
from tasks.ranges import Doublings
from tasks.scoring import AT_ONCE

__all__ = ["ANSWERED", "DIGITS", "Passkey", "words"]

DEPTHS = ("start", "middle", "end")
SCORES = ("digits", "exact")
WITHOUT_GAP = 0.25  # share of prompts without a gap in a stage with gaps
READ_AT_ONCE = 4096  # tokens of a long prompt read at once; this limits how many prompts fit into a batch


@dataclass
class Stage:
    """A stage of the training: `steps` steps on prompts of `shortest` segments, doubled up to `doublings` times.

    gap: if not 0, prompts are cut into three parts, and up to this many tokens of filler are skipped at the two cuts.
    """

    steps: PositiveInt
    shortest: PositiveInt
    doublings: Doublings
    gap: NonNegativeInt = 0


class Passkey(Prompts):
    """Prompts of exact length; the depth of the key is uniform over tokens.

    segment_length: the unit of training lengths, and the segments by which `last_segment` is decided. A length includes
    the digits of the answer that a model reads back, so that answering does not start a new segment. tokens_per_batch:
    a batch has as many prompts as fit into this number of tokens. stages: stages of the training. language_weight:
    weight of the loss on the prompt, relative to the loss on the answer. evaluation_lengths: prompt lengths in tokens,
    each evaluated with the key at the start, in the middle and at the end, which is inside the last segment. prompts:
    prompts per length and depth; fewer, at least one, if they would exceed `evaluation_tokens`. control_length: up to
    this length, models with gates are also evaluated with their memory switched off; models whose state grows with the
    text are evaluated only up to this length. wording: the paper whose prompt is used. first_token: see Prompts.
    split: whose keys the evaluation asks for; those of test, of validation and of the training differ. Raises
    ValueError for lengths that are too short for a prompt or its gaps.

    A stage with gaps trains on long distances at the cost of short ones. The filler is periodic, and an additive memory
    changes by about the same amount in every period. So one period is read, and at a cut its contribution is added to
    the memory n times, n log-uniform, as if n periods had been read (`skip` in models/transformer.py). A model without
    such a memory just reads the short prompt. The evaluation reads every token of every prompt.
    """

    predicts_next = True

    def __init__(
        self,
        seed: NonNegativeInt,
        segment_length: PositiveInt,
        tokens_per_batch: PositiveInt,
        stages: list[Stage],
        language_weight: NonNegativeFloat,
        evaluation_lengths: list[PositiveInt],
        prompts: PositiveInt,
        evaluation_tokens: PositiveInt | None = None,
        control_length: PositiveInt | None = None,
        wording: Literal["infini", "landmark"] = "infini",
        first_token: int = 0,
        split: ScoredSplit = "test",
    ):
        super().__init__(WORDINGS[wording], first_token)
        self.model_arguments = {"vocabulary_size": len(self.identifiers)}
        self.seed, self.split = seed, split
        self.segment_length, self.tokens_per_batch = segment_length, tokens_per_batch
        self.stages = [Stage(**stage) for stage in stages]  # type: ignore[arg-type]
        self.language_weight, self.prompts = language_weight, prompts
        self.evaluation_lengths, self.evaluation_tokens = evaluation_lengths, evaluation_tokens
        self.control_length = control_length
        self.period = math.lcm(len(self.filler), segment_length)
        trained = [segment_length * stage.shortest * 2**stage.doublings for stage in self.stages]
        self.length = max(trained + evaluation_lengths)
        shortest = min([stage.shortest * segment_length for stage in self.stages] + evaluation_lengths) - ANSWERED
        if shortest < self.fixed:
            raise ValueError(f"a passkey prompt needs at least {self.fixed} tokens; {shortest} were requested")
        for stage in self.stages:
            if stage.gap and (stage.shortest < 3 or stage.gap < self.period):
                raise ValueError(
                    f"a stage with gaps needs prompts of at least 3 segments and gaps of at least {self.period} tokens "
                    f"(a period of the filler in whole segments), not {stage.shortest} segments and gaps of {stage.gap}"
                )

    def batch(self, step: int) -> Batch:
        generator = random_generator(self.seed, step)
        stage = self.stage(step)
        segments = stage.shortest * 2 ** int(generator.integers(stage.doublings + 1))
        length = self.segment_length * segments
        rows = max(1, self.tokens_per_batch // length)
        keys = generator.choice(KEYS_OF["train"], rows)
        length -= ANSWERED
        depths = generator.integers(0, length - self.fixed + 1, rows)
        prompts = np.stack([self.prompt(length, key, depth) for key, depth in zip(keys, depths)])
        answers = np.stack([self.encode(str(key)) for key in keys])
        batch = {"prompt": torch.from_numpy(prompts), "answer": torch.from_numpy(answers)}
        return batch | (self.gaps(generator, stage, segments, depths) if stage.gap else {})

    def gaps(self, generator: np.random.Generator, stage: Stage, segments: int, depths: np.ndarray) -> Batch:
        """The gaps of a batch: cuts (B, 2), the skipped period of filler (B, T), and how often it is skipped (B, 2).

        Cuts and filler are the same in all rows. One third of the rows skips only at the first cut, one third only at
        the second.
        """
        rows = len(depths)
        cuts = self.segment_length * np.sort(generator.choice(np.arange(1, segments), 2, replace=False))
        periods = np.exp(generator.uniform(0, np.log(stage.gap / self.period), rows))
        periods[generator.random(rows) < WITHOUT_GAP] = 0
        first = generator.choice([0.0, 1.0, 0.5], rows)
        first = np.where(first == 0.5, generator.random(rows), first)
        times = np.floor(periods[:, None] * np.stack([first, 1 - first], axis=1))
        key = len(self.introduction) + depths[:, None]
        question = self.segment_length * segments - ANSWERED - len(self.question)
        in_filler = (cuts <= key) | (cuts >= key + self.sentence_length)
        times *= in_filler & (cuts >= len(self.introduction)) & (cuts <= question)
        filler = np.resize(np.roll(self.filler, generator.integers(len(self.filler))), self.period)
        return {
            "cuts": torch.from_numpy(np.tile(cuts, (rows, 1))),
            "times": torch.from_numpy(times).float(),
            "skipped": torch.from_numpy(np.tile(filler, (rows, 1))),
        }

    def stage(self, step: int) -> Stage:
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

    def loss(self, model: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        tokens = torch.cat([batch["prompt"], batch["answer"]], dim=1)
        logits = self.logits(model, tokens[:, :-1], batch)
        losses = F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none")
        losses = losses.view(len(tokens), -1)
        return losses[:, -DIGITS:].mean() + self.language_weight * losses[:, :-DIGITS].mean(), None

    def logits(self, model: nn.Module, tokens: Tensor, batch: Batch) -> Tensor:
        """The logits for tokens (B, T), with the batch's gaps if it has any and the model can skip them."""
        bare: Any = getattr(model, "module", model)  # behind DistributedDataParallel
        if "cuts" not in batch or not hasattr(bare, "skip"):
            return model(tokens)[0]
        period = bare.period(batch["skipped"][:1])
        first, *later = tokens.tensor_split(batch["cuts"][0].tolist(), dim=1)
        outputs, state = model(first)
        logits = [outputs]
        for piece, times in zip(later, batch["times"].unbind(1)):
            outputs, state = model(piece, bare.skip(state, period, times))
            logits.append(outputs)
        return torch.cat(logits, dim=1)

    def evaluate(self, model: nn.Module) -> Evaluation:
        lengths, short = self.lengths_for(model)
        rows = self.rows(model, lengths, "on")
        with gates_closed(model) as any_gate:
            off = self.rows(model, short if any_gate else [], "off")
        metrics = {f"{score}/{row['length']}/{row['depth']}": row[score] for row in rows for score in SCORES}
        through = [row for row in rows if not row["last_segment"]]
        longest = max(row["length"] for row in rows)
        groups = {
            "through_memory": through,
            "through_memory_longest": [row for row in through if row["length"] == longest],
            "last_segment": [row for row in rows if row["last_segment"]],
            **{f"through_memory/{n}": [row for row in through if row["length"] == n] for n in self.evaluation_lengths},
        }
        metrics |= {f"memory_off/{row['length']}/{row['depth']}": row["digits"] for row in off}
        groups["memory_off"] = [row for row in off if not row["last_segment"]]
        for name, chosen in groups.items():
            for score in SCORES if chosen else ():
                metrics[f"{name}/{score}"] = float(np.mean([row[score] for row in chosen]))
            if chosen:
                metrics[f"{name}/prompts"] = float(sum(row["prompts"] for row in chosen))
        return Evaluation(metrics, {"retrieval": rows + off})

    def lengths_for(self, model: nn.Module) -> tuple[list[int], list[int]]:
        """The prompt lengths at which a model is evaluated, and those up to the control length."""
        lengths = self.evaluation_lengths
        short = [length for length in lengths if length <= (self.control_length or 0)]
        return (short if self.control_length is not None and self.grows(model) else lengths), short

    def readings(self, model: nn.Module) -> list[Reading]:
        lengths, short = self.lengths_for(model)
        again = short if any(name.endswith(".gate") for name, _ in model.named_parameters()) else []
        return [call for length in [*lengths, *again] for depth in DEPTHS for call in self.answering(length, depth)]

    def answering(self, length: int, depth: str) -> list[Reading]:
        """The model calls of `retrieve`, which reads a prefix that all prompts share only once."""
        count, rows = self.prompts_and_rows(length)
        before = len(self.introduction) + self.filler_before(length - ANSWERED, depth) if min(count, rows) > 1 else 0
        shared, batches = before // READ_AT_ONCE, -(-count // rows)
        together = [Reading(1, READ_AT_ONCE, batches, shared)] if shared else []
        rest = length - shared * READ_AT_ONCE
        piece = min(rest, READ_AT_ONCE)
        return [*together, Reading(min(rows, count), piece, batches, -(-rest // piece), DIGITS)]

    def prompts_and_rows(self, length: int) -> tuple[int, int]:
        """The number of prompts of a length, and the number of them per batch."""
        count, held = self.prompts, length
        if self.evaluation_tokens is not None:
            count = max(1, min(count, self.evaluation_tokens // length))
            held = min(length, READ_AT_ONCE)
        return count, max(1, 4 * min(self.tokens_per_batch, AT_ONCE) // held)

    def rows(self, model: nn.Module, lengths: list[int], memory: str) -> list[dict[str, Any]]:
        """The results at these lengths and all depths."""
        return [
            {"length": length, "depth": depth, "memory": memory, **self.retrieve(model, length, depth)}
            for length in lengths
            for depth in DEPTHS
        ]

    @torch.no_grad()
    def grows(self, model: Any) -> bool:
        """Whether the state still grows when a period of filler is read after the control length."""
        if not hasattr(model, "initial_state"):
            return False
        filler = torch.from_numpy(np.resize(self.filler, (1, self.control_length or 1))).to(device_of(model))
        _, before = model(filler)
        _, after = model(filler[:, : self.period], before)
        sizes = [sum(leaf.numel() for leaf in tree_leaves(state)) for state in (before, after)]
        return sizes[1] > sizes[0]

    @torch.no_grad()
    def retrieve(self, model: Any, length: int, depth: str) -> dict[str, Any]:
        """The shares of correct digits and of correct keys, for prompts with keys that were never trained on; and the
        key and the answer of the first prompt."""
        count, rows = self.prompts_and_rows(length)
        generator = random_generator(self.seed, length - ANSWERED, DEPTHS.index(depth))
        keys = generator.choice(KEYS_OF[self.split], count, replace=False)
        answers = np.stack([self.encode(str(key)) for key in keys])
        prompts = self.at_depth(length, keys, depth)
        named = [
            model.answer(torch.from_numpy(prompts[i : i + rows]).to(device_of(model)), DIGITS).cpu().numpy()
            for i in range(0, len(prompts), rows)
        ]
        given = np.concatenate(named)
        right = given == answers
        length = prompts.shape[1]
        sentence_start = len(self.introduction) + self.filler_before(length, depth)
        key_ends = sentence_start + self.sentence_length - self.after_key - 1
        return {
            "digits": float(right.mean()),
            "exact": float(right.all(axis=1).mean()),
            "last_segment": key_ends // self.segment_length == (length - 1) // self.segment_length,
            "prompts": len(keys),
            "first_key": str(keys[0]),
            "first_answer": self.decode(given[0]),
        }

    def at_depth(self, length: int, keys: np.ndarray, depth: str) -> np.ndarray:
        """Prompts (B, length - ANSWERED), one per key, with the key at the start, in the middle or at the end.

        Raises ValueError for a length that is too short for a prompt.
        """
        length -= ANSWERED
        if length < self.fixed:
            raise ValueError(f"a passkey prompt needs at least {self.fixed} tokens; {length} were requested")
        return np.stack([self.prompt(length, key, self.filler_before(length, depth)) for key in keys])

    def filler_before(self, length: int, depth: str) -> int:
        """The number of filler tokens before the sentence with the key."""
        space = length - self.fixed
        return {"start": 0, "middle": space // 2, "end": space}[depth]


@contextlib.contextmanager
def gates_closed(model: nn.Module) -> Iterator[bool]:
    """Restrict a model to local attention: sets all gates to -∞ and restores them. Yields whether there are gates."""
    gates = [parameter for name, parameter in model.named_parameters() if name.endswith(".gate")]
    values = [gate.detach().clone() for gate in gates]
    for gate in gates:
        gate.data.fill_(-torch.inf)
    try:
        yield bool(gates)
    finally:
        for gate, value in zip(gates, values):
            gate.data.copy_(value)
