"""The cost of a long context: time per token, size of the state and peak memory as a stream grows."""

import itertools
import math
import statistics
import time
from functools import partial
from typing import Any

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn

from experiments.measurements.tensor_memory import peak_bytes
from experiments.measurements.timing import interleaved
from experiments.recording import environment
from models.state import leaves
from tasks.base import Evaluation, Measurement, Reading, device_of

VOCABULARY = 1024
GROWN = 16  # for cost estimates: pieces after which a model with a growing state is assumed to be too slow


class ContextCost(Measurement):
    """Streams random tokens through a model and measures its cost at each of `lengths` tokens.

    piece: tokens read at a time. repeats: timings of a piece at every length, in turn. slowest: most seconds that a
    piece may take; the stream of a slower model, such as full attention at some length, ends there, and `longest` says
    where. Raises ValueError for lengths that do not increase or are no multiples of `piece`.
    """

    def __init__(
        self,
        seed: NonNegativeInt,
        lengths: list[PositiveInt],
        piece: PositiveInt,
        repeats: PositiveInt,
        slowest: PositiveFloat,
    ):
        if any(length % piece for length in lengths) or sorted(set(lengths)) != lengths:
            raise ValueError(f"task.lengths must increase and be multiples of task.piece={piece}, not {lengths}")
        self.seed, self.lengths, self.piece = seed, lengths, piece
        self.repeats, self.slowest = repeats, slowest
        self.model_arguments = {"vocabulary_size": VOCABULARY}

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> Evaluation:
        device = device_of(model)
        generator = torch.Generator().manual_seed(self.seed)
        tokens = torch.randint(0, VOCABULARY, (1, self.piece), generator=generator).to(device)
        precise = environment.resolve_precision("auto") == "fp32"
        states: dict[int, tuple[Any, float]] = {}
        state, begun = None, time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=not precise):
            for _ in range(self.repeats):  # the first calls of a process are slow
                model(tokens, None)
            for seen in itertools.count(self.piece, self.piece):
                if seen in self.lengths:
                    states[seen] = state, time.perf_counter() - begun
                    fastest = min(interleaved({"": partial(model, tokens, state)}, self.repeats)[""])
                    if seen == self.lengths[-1] or fastest > self.slowest:
                        break
                _, state = model(tokens, state)
            rows, growth = self.measure(model, tokens, states)
        first, last = rows[0], rows[-1]
        metrics = {
            "longest": float(last["length"]),
            "time_growth": growth,
            "state_growth": last["state_bytes"] / first["state_bytes"],
            "memory_growth": last["peak_bytes"] / first["peak_bytes"],
            "stream_seconds": last["stream_seconds"],
            "state_bytes": float(last["state_bytes"]),
            "peak_bytes": float(last["peak_bytes"]),
        }
        for row in rows:
            for name in ("ms_per_token", "ms_per_decoded_token", "state_bytes", "peak_bytes"):
                metrics[f"{name}/{row['length']}"] = row[name]
        return Evaluation(metrics, {"context_cost": rows})

    def readings(self, model: nn.Module) -> list[Reading]:
        with torch.no_grad():
            tokens = torch.zeros(1, self.piece, dtype=torch.long, device=device_of(model))
            _, before = model(tokens, model(tokens, None)[1])
            _, after = model(tokens, before)
        grows = sum(x.numel() for x in leaves(after)) > sum(x.numel() for x in leaves(before))
        pieces = min(self.lengths[-1] // self.piece, GROWN if grows else math.inf)
        measured = sum(length <= pieces * self.piece for length in self.lengths)
        again = Reading(1, self.piece, (2 * self.repeats + 4) * measured, generated=1)
        return [Reading(1, self.piece, pieces=int(pieces)), again]

    def measure(
        self, model: nn.Module, tokens: torch.Tensor, states: dict[int, tuple[Any, float]]
    ) -> tuple[list[dict[str, Any]], float]:
        """The cost, at each length, of reading the piece that ends there and of decoding one token after it; and how
        much longer the last piece takes than the first. states: those before the pieces, and when they were reached.

        The lengths are measured in turn, so that a slow moment of the machine affects all.
        """
        after = {seen: model(tokens, state)[1] for seen, (state, _) in states.items()}
        pieces = {str(seen): partial(model, tokens, state) for seen, (state, _) in states.items()}
        reading = interleaved(pieces, self.repeats)
        decoding = interleaved({str(seen): partial(model, tokens[:, :1], after[seen]) for seen in states}, self.repeats)
        rows = [
            {
                "length": seen,
                "ms_per_token": 1000 * min(reading[str(seen)]) / self.piece,
                "ms_per_decoded_token": 1000 * min(decoding[str(seen)]),
                "state_bytes": sum(leaf.numel() * leaf.element_size() for leaf in leaves(after[seen])),
                "peak_bytes": peak_bytes(pieces[str(seen)]),
                "stream_seconds": reached,
            }
            for seen, (_, reached) in states.items()
        ]
        first, last = reading[str(min(states))], reading[str(max(states))]
        return rows, statistics.median(late / early for early, late in zip(first, last))
