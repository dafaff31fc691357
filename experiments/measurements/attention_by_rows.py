"""Attention worked out row by row: fewer bytes at a time, and as many operations."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from experiments.measurements.tensor_memory import peak_bytes
from tasks.base import Evaluation

WIDTH = 64  # of a head
LENGTHS = (256, 512, 1024)


def whole(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q Kᵀ / √d) V of Q, K and V (T, d), with all scores at once."""
    return ((query @ key.T) * WIDTH**-0.5).softmax(dim=-1) @ value


def by_rows(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same, one query after the other."""
    made = torch.empty_like(query)
    for row in range(len(query)):
        made[row] = ((query[row : row + 1] @ key.T) * WIDTH**-0.5).softmax(dim=-1) @ value
    return made


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same by torch's own kernel, which keeps blocks of scores only."""
    return F.scaled_dot_product_attention(query[None, None], key[None, None], value[None, None])[0, 0]


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"whole": whole, "by_rows": by_rows, "fused": fused}


def attention_by_rows() -> Evaluation:
    """M11: operations and peak memory by length, of attention at once, by rows and fused, and the largest deviation.

    Growth is that from 512 to 1,024 tokens: 2 is linear, 4 is quadratic. Operations are two for a multiplication and an
    addition; memory is that of tensors that live at a time, with the result.
    """
    generator, rows, results = torch.Generator().manual_seed(0), [], dict[tuple[str, int], Tensor]()
    for length in LENGTHS:
        given = torch.randn(3, length, WIDTH, generator=generator).unbind()
        for name, way in WAYS.items():
            with FlopCounterMode(display=False) as counter:
                results[name, length] = way(*given)
            peak = peak_bytes(lambda way=way, given=given: way(*given))  # type: ignore[misc]
            rows.append({"way": name, "tokens": length, "operations": counter.get_total_flops(), "bytes": peak})
    found = {(row["way"], row["tokens"]): row for row in rows}
    metrics = {}
    for name in WAYS:
        half, full = found[name, LENGTHS[-2]], found[name, LENGTHS[-1]]
        for what in ("operations", "bytes") if name != "fused" else ("bytes",):
            metrics[f"growth/{what}/{name}"] = full[what] / half[what]
    for name in ("by_rows", "fused"):
        differences = [(results[name, n] - results["whole", n]).abs().max() for n in LENGTHS]
        metrics[f"deviation/{name}"] = float(torch.stack(differences).max())
    one, other = found["by_rows", LENGTHS[-1]], found["whole", LENGTHS[-1]]
    metrics |= {f"by_rows_over_whole/{what}": one[what] / other[what] for what in ("operations", "bytes")}
    return Evaluation(metrics, {"attention": rows})
