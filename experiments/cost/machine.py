"""How fast a machine works through what a run asks of it: this one by a short measurement, others as published."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from rich.console import Console
from scipy.optimize import nnls
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.config.cache import composition
from experiments.config.choices import nearest
from experiments.config.errors import ConfigError
from experiments.cost.memory import free_bytes, step_of
from experiments.cost.recall import fused_attention, recalled
from experiments.cost.trace import Work
from experiments.cost.workload import PASSES, Workload
from experiments.records import environment
from experiments.records.record import Record
from experiments.training.loop import parameter_groups, train
from models.initialization import initialize
from tasks.base import Batch, Evaluation, Measurement, random_generator

FLOPS_SHARE = 0.4  # of the peak of an accelerator's matrix products that training is assumed to reach
BYTES_SHARE = 0.7  # of its memory's bandwidth
LAUNCH = 5e-6  # seconds that starting a kernel is assumed to take
STEP = 1e-3  # and a step beside its kernels
BEGIN = 1.0  # and a training before its first step
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
MEASURED = (  # stand for all: two short steps, many small operations, one after the other, convolutions, a tiny step
    (("experiment=positions",), (4, 256)),
    (("experiment=memory_lm", "attention=infini_delta"), (1, 1024)),
    (("experiment=gates", "gates=mended"), (16, 128)),
    (("experiment=memory_lm", "attention=recurrent_memory"), (1, 256)),
    (("experiment=activation_images", "activation=swish"), (64, 3, 32, 32)),
    (("experiment=activation_robustness", "activation=silu"), (64, 1, 8, 8)),
)
VOCABULARY, CLASSES = 1024, 62
WARM, TIMED = 2, 6  # steps
NEIGHBOUR = """
import time, torch
torch.set_num_threads(1)
end, large, square = time.time() + 30, torch.ones(2**22), torch.ones(256, 256)
while time.time() < end:
    large.add_(1)
    square @ square
"""  # stands for the runs on the other cores, which share the memory with the one that is measured
PRODUCT = 1024  # width of the matrices whose product is timed
HEADS, HEAD_WIDTH, ATTENDED = 4, 32, 4096  # of the attention that is timed, as in the laptop's models


class Machine(NamedTuple):
    """Seconds of a step beside its operations, of starting an operation, of a floating-point operation, of moving a
    byte, of a score of attention that is not kept beside its products, and of beginning a training; bytes of memory;
    runs at a time; and in words where that is from."""

    step: float
    operation: float
    flop: float
    byte: float
    score: float
    begin: float
    memory: float
    at_once: int
    source: str

    def seconds(self, load: Workload) -> float:
        """How long a run takes."""
        asked = (load.steps, *load.work, load.begun)
        return sum(seconds * count for seconds, count in zip(self[:6], asked))


def accelerator(name: str) -> Machine:
    """One device of a kind. Raises ConfigError for one that is not known."""
    if name not in ACCELERATORS:
        raise ConfigError(f"ACCELERATOR={name} is not known; {nearest(name, list(ACCELERATORS))}")
    peak, bandwidth, memory = ACCELERATORS[name]
    source = (
        f"one {name}: {FLOPS_SHARE:.0%} of its published {peak / 1e12:,.0f} TFLOP/s and {BYTES_SHARE:.0%} of its "
        f"{bandwidth / 1e12:.2g} TB/s are assumed, one after the other, and {LAUNCH * 1e6:.0f} µs a kernel"
    )
    flop, byte = 1 / (FLOPS_SHARE * peak), HALF / (BYTES_SHARE * bandwidth)
    return Machine(STEP, LAUNCH, flop, byte, 0.0, BEGIN, memory, 1, source)


def this_machine() -> Machine:
    """This machine, from a few steps of small models, two readings, a matrix product and attention, on one thread and
    beside others as runs are."""
    begun = time.perf_counter()
    threads, device = torch.get_num_threads(), "cuda" if torch.cuda.is_available() else "cpu"
    at_once = 1 if device == "cuda" else len(os.sched_getaffinity(0))
    environment.use_threads(1)
    precision = environment.resolve_precision("auto")
    neighbours = [subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) for _ in range(at_once - 1)]
    try:
        trained = [measured(overrides, shape, precision, device) for overrides, shape in MEASURED]
        rows = [row for row, _ in trained]
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        rows += [product(kind, device), attention(kind, device)]
        rows += [reading(overrides, device) for overrides, _ in MEASURED[:2]]
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()
        torch.set_num_threads(threads)
    # As little as explains all of them, each to the same share: no coefficient is negative.
    found, _ = nnls(torch.tensor([[x / s for x in w] for w, s in rows]).numpy(), [1.0] * len(rows))
    off = max(abs(sum(x * y for x, y in zip(found, w)) / s - 1) for w, s in rows)
    source = (
        f"{environment.processor()}, measured in {time.perf_counter() - begun:.0f} s on {len(rows)} small pieces of "
        f"work with {at_once} at a time, which it explains to {off:.0%}"
    )
    begin = statistics.median(seconds for _, seconds in trained)
    step, operation, flop, byte, score = map(float, found)
    return Machine(step, operation, flop, byte, score, begin, free_bytes(), at_once, source)


Row = tuple[tuple[float, ...], float]  # steps and what Work counts, and their seconds


class Sample(Measurement):
    """Random tokens or images of one shape."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape

    def batch(self, step: int) -> Batch:
        generator = random_generator(step)
        if len(self.shape) == 2:
            tokens = torch.from_numpy(generator.integers(0, VOCABULARY, (self.shape[0], self.shape[1] + 1)))
            return {"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}
        labels = torch.from_numpy(generator.integers(0, CLASSES, self.shape[0]))
        return {"images": torch.from_numpy(generator.random(self.shape, "float32")), "targets": labels}

    def loss(self, model: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        first, targets = batch.values()
        made = model(first)
        logits = made[0] if isinstance(made, tuple) else made
        return F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten()), None

    def evaluate(self, model: nn.Module) -> Evaluation:
        return Evaluation({})


def model_of(overrides: tuple[str, ...], shape: tuple[int, ...]) -> tuple[Callable[[], nn.Module], dict[str, Any]]:
    """What builds a model of the laptop's scale for inputs of this shape, and its configuration."""
    from experiments.config.build import build

    config = composition((*overrides, "scale=laptop"), 0, "")
    sizes = {"channels": shape[1], "classes": CLASSES} if len(shape) == 4 else {"vocabulary_size": VOCABULARY}
    return lambda: build(OmegaConf.create(config).model, **sizes), config


def measured(overrides: tuple[str, ...], shape: tuple[int, ...], precision: str, device: str) -> tuple[Row, float]:
    """A training step of a model, in the loop that all runs are trained by, and the seconds of a training beside its
    steps, from the building of the model on."""
    from experiments.config.build import build

    make, config = model_of(overrides, shape)
    task, settings = Sample(shape), OmegaConf.create(config)
    training = config["training"] | {"evaluate_at": [], "log_every": TIMED}
    with torch.device("meta"):
        sketch = make()
    with fused_attention(device == "cuda"):
        work, _ = recalled(step_of(sketch, task, task.batch(0)))
    weights = sum(parameter.nbytes for parameter in sketch.parameters())

    def seconds(steps: int) -> float:
        started = clock()
        model = make().to(device)
        initialize(model, 0)
        optimizer = build(settings.optimizer)(parameter_groups(model, training["gate_learning_rate"]))
        schedule, asked = build(settings.schedule), training | {"steps": steps}
        with TemporaryDirectory() as folder:
            record = Record(Path(folder))
            train(model, task, optimizer, schedule, asked, precision, record, None, Console(quiet=True))
        return clock() - started

    first = min(seconds(WARM) for _ in range(2))  # the very first steps of a process are slow
    spent = max((seconds(WARM + TIMED) - first) / TIMED, 1e-6)
    row = (1, *work.and_also(Work(1, 0, PASSES * weights))), spent
    return row, max(first - WARM * spent, 0.0)


def reading(overrides: tuple[str, ...], device: str) -> Row:
    """A piece of a long text, read for evaluation."""
    shape = (1, 2048)
    make, _ = model_of(overrides, shape)
    with torch.device("meta"):
        sketch, tokens = make(), torch.zeros(shape, dtype=torch.long)
    with torch.no_grad():
        with fused_attention(device == "cuda"):
            work, _ = recalled(lambda: sketch(tokens))
        model = make().to(device)
        initialize(model, 0)
        text = torch.zeros(shape, dtype=torch.long, device=device)
        with torch.autocast(device, torch.bfloat16, enabled=environment.resolve_precision("auto") == "bf16"):
            return (0, *work), fastest(lambda: model(text))


def product(kind: torch.dtype, device: str) -> Row:
    """A product of matrices that fill the machine."""
    square = torch.randn(PRODUCT, PRODUCT, device=device, dtype=kind)
    work = Work(1, 2.0 * PRODUCT**3, 3.0 * square.nbytes)
    return (0, *work), fastest(lambda: square @ square)


def attention(kind: torch.dtype, device: str) -> Row:
    """Attention over keys so many that devices keep no score."""
    query = torch.randn(1, HEADS, ATTENDED, HEAD_WIDTH, device=device, dtype=kind)
    sketch = query.to("meta")
    with fused_attention(device == "cuda"):
        work, _ = recalled(lambda: F.scaled_dot_product_attention(sketch, sketch, sketch))
    return (0, *work), fastest(lambda: F.scaled_dot_product_attention(query, query, query))


def fastest(call: Callable[[], object]) -> float:
    """The seconds of a call that has been made before."""
    times = []
    for _ in range(5):
        started = clock()
        call()
        times.append(clock() - started)
    return max(min(times), 1e-6)


def clock() -> float:
    """Seconds: of this process on a processor, so that others do not count; of the world on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
