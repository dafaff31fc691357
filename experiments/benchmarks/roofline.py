"""What bounds a training step: its operations and bytes against what this machine does at the same shapes."""

import statistics
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch.nn import functional as F

from experiments.benchmarks.peers import TOKENS, Step, next_token, ours, text
from experiments.cost.op_tracer import trace
from experiments.measurements.timing import interleaved

STEPS: dict[str, tuple[int, int, int, tuple[str, ...]]] = {  # width, segment, length, choices
    "plain decoder": (256, 128, 1024, ("attention=full", "activation=silu")),
    "Transformer-XL": (256, 128, 1024, ("attention=transformer_xl",)),
    **{
        f"Infini (delta), {width}, {segment}, {length:,}": (width, segment, length, ("attention=infini_delta",))
        for width, segment, length in ((128, 64, 1024), (256, 128, 1024), (256, 64, 4096), (512, 128, 4096))
    },
}
COPIED = 2**24  # numbers of the two arrays whose sum is timed
REPEATS = 5


def roofline_table(precision: str) -> Table:
    """Each step: products and bytes, the seconds that these alone need on this machine, and the seconds that it takes.

    The machine's rates are those of the product of the feed-forward layer at the step's own width, and of the sum of
    two large arrays. Operations are not fused, so that a step can at best take both times one after the other.
    """
    heads = ("step", "GFLOP", "GB moved", "products alone, s", "memory alone, s", "measured, s", "share of the bound")
    table = Table(*heads, title=f"roofline, {TOKENS:,} tokens per step, {precision}; the bound is both together")
    for name, (width, segment, length, choices) in STEPS.items():
        with torch.device("meta"):
            sketch = ours(width, segment, *choices)
        work = trace(meta_step(sketch, text(length)), on_gpu=False).work
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        left, right, x = torch.randn(TOKENS, width), torch.randn(width, 8 * width // 3), torch.randn(COPIED)
        left, right = left.to(dtype), right.to(dtype)
        calls: dict[str, Step] = {
            "step": next_token(ours(width, segment, *choices), text(length), precision),
            "product": partial(torch.matmul, left, right),
            "sum": partial(torch.add, x, x),
        }
        seconds = {call: statistics.median(times) for call, times in interleaved(calls, REPEATS).items()}
        products = work[0] * seconds["product"] / (2 * TOKENS * right.numel())
        memory = work[2] * seconds["sum"] / (2 * x.nbytes)
        cells = (work[0] / 1e9, work[2] / 1e9, products, memory, seconds["step"])
        bound = (products + memory) / seconds["step"]
        table.add_row(name, *(f"{cell:,.3g}" for cell in cells), f"{bound:.0%}")
    return table


def meta_step(model: Any, tokens: torch.Tensor) -> Any:
    """Loss and gradients on the meta device."""
    there = tokens.to("meta")

    def step() -> None:
        logits, _ = model(there[:, :-1])
        F.cross_entropy(logits.flatten(0, 1), there[:, 1:].flatten()).backward()

    return step
