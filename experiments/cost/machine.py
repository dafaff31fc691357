"""How fast a machine does what a run needs: this one by a short measurement, others as published."""

import json
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import nnls
from torch.utils.benchmark import Timer, timer

from experiments.config.build import build
from experiments.config.cache import composition
from experiments.config.choices import nearest
from experiments.config.errors import ConfigError
from experiments.cost.estimate import OPERATIONS, PASSES, Estimate
from experiments.cost.memory import free_bytes, step_of
from experiments.cost.op_tracer import trace
from experiments.cost.synthetic_data import task_of
from experiments.recording import environment
from models.initialization import initialize

FLOPS_SHARE = 0.4  # of the peak of an accelerator's matrix products that training is assumed to reach
BYTES_SHARE = 0.7  # of its memory's bandwidth
LAUNCH = 5e-6  # seconds that starting a kernel is assumed to take
HALF = 0.5  # of the float32 bytes that are counted are moved in bf16
# Dense bf16 operations a second, bytes of memory a second, bytes of memory: NVIDIA's figures of A100 80GB (SXM), H100
# (SXM), H200, L4, an eighth of DGX B200 and RTX 4090 (with sums in float32), read at second hand; L4's operations are
# not confirmed. Figures "with sparsity" are twice as large.
ACCELERATORS = {
    "a100": (312e12, 2.039e12, 80e9),
    "b200": (2250e12, 8.0e12, 180e9),
    "h100": (989e12, 3.35e12, 80e9),
    "h200": (989e12, 4.8e12, 141e9),
    "l4": (121e12, 0.3e12, 24e9),
    "rtx4090": (165e12, 1.008e12, 24e9),
}
MEASURED = (  # runs of the laptop's scale: of tokens, of many small operations, of images large and tiny
    ("experiment=positions",),
    ("experiment=memory_lm", "attention=infini_delta"),
    ("experiment=activation_images", "activation=swish"),
    ("experiment=activation_robustness", "activation=silu"),
)
PRODUCT = 1024  # width of the matrices whose product is timed
REPEATS = 5  # of a product or a step


class Machine(NamedTuple):
    """Seconds of a floating-point operation, of starting an operation and of moving a byte; bytes of memory; runs at a
    time; and in words where that is from."""

    flop: float
    operation: float
    byte: float
    memory: float
    at_once: int
    source: str

    def seconds(self, needed: Estimate) -> float:
        """How long a run takes."""
        return self.flop * needed.flops + self.operation * needed.operations + self.byte * needed.bytes


def accelerator(name: str) -> Machine:
    """One device of a kind. Raises ConfigError for one that is not known."""
    if name not in ACCELERATORS:
        raise ConfigError(f"ACCELERATOR={name} is not known; {nearest(name, list(ACCELERATORS))}")
    peak, bandwidth, memory = ACCELERATORS[name]
    source = (
        f"one {name}: {FLOPS_SHARE:.0%} of its published {peak / 1e12:,.0f} TFLOP/s and {BYTES_SHARE:.0%} of its "
        f"{bandwidth / 1e12:.2g} TB/s are assumed, one after the other, and {LAUNCH * 1e6:.0f} µs a kernel"
    )
    return Machine(1 / (FLOPS_SHARE * peak), LAUNCH, HALF / (BYTES_SHARE * bandwidth), memory, 1, source)


def this_machine() -> Machine:
    """This machine, from a matrix product and a few training steps of small models."""
    begun, on_gpu = time.perf_counter(), torch.cuda.is_available()
    square = torch.randn(PRODUCT, PRODUCT, device="cuda" if on_gpu else "cpu")
    product = np.array([2 * PRODUCT**3, 1, 3 * square.nbytes]) / seconds_of(lambda: square @ square, on_gpu)
    shares = np.array([product, *(measured(run, on_gpu) for run in MEASURED)])
    rates, _ = nnls(shares, np.ones(len(shares)))  # which explain all of them to about the same share; none is negative
    at_once = 1 if on_gpu else len(os.sched_getaffinity(0))
    source = (
        f"{environment.processor()}, measured in {time.perf_counter() - begun:.0f} s on {len(shares)} small pieces of "
        f"work, which it explains to {abs(shares @ rates - 1).max():.0%}; {at_once} at a time"
    )
    flop, operation, byte = map(float, rates)
    return Machine(flop, operation, byte, free_bytes(), at_once, source)


def measured(overrides: tuple[str, ...], on_gpu: bool) -> np.ndarray:
    """The work in a second of a training step of a run at the laptop's scale."""
    config = composition((*overrides, "scale=laptop"), 0, "")
    task, device = task_of(json.dumps(config["data"]), json.dumps(config["task"])), "cuda" if on_gpu else "cpu"
    with torch.device("meta"):
        sketch = build(config["model"], **task.model_arguments)
    model, batch = build(config["model"], **task.model_arguments).to(device), task.batch(0)
    initialize(model, 0)
    tensors, step = list(model.parameters()), step_of(model, task, batch)
    optimizer, bf16 = torch.optim.AdamW(tensors), environment.resolve_precision("auto") == "bf16"

    def train() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            step()
        torch.nn.utils.clip_grad_norm_(tensors, 1.0)
        optimizer.step()

    update = np.array([0, OPERATIONS * len(tensors), PASSES * sum(x.nbytes for x in tensors)])
    return (trace(step_of(sketch, task, batch), on_gpu).work + update) / seconds_of(train, on_gpu)


def seconds_of(call: Callable[[], object], on_gpu: bool) -> float:
    """The mean seconds of a call on one thread, as runs are; on a processor others do not count."""
    clock = timer if on_gpu else time.process_time
    return Timer("call()", timer=clock, globals={"call": call}).timeit(REPEATS).mean
