"""What a run asks of a machine, found out on the meta device, where nothing is computed and nothing is allocated."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from experiments.cost.memory import MOMENTS, first_piece, in_precision, step_of
from experiments.cost.recall import Recall, recalled
from experiments.cost.trace import Work
from models.attention.base import SHORT
from models.state import leaves
from tasks.base import Batch, Reading, device_of

SAMPLED = 6  # steps of a training that stand for all of them
DEPTHS = ("layers", "encoder_layers", "decoder_layers")  # settings of models whose layers are all alike, but for one
PIECES = 3  # of a stream that are looked at, and as many more as bring it to where a processor keeps no scores
PASSES = 10  # over the weights in a step: norm and clipping of the gradient 3, the optimizer 7

Piece = tuple[Work, int]  # the work of reading it, and the most bytes that it makes, with the state that it is given


class Workload(NamedTuple):
    """Of one run: trained parameters; bytes of weights, of the optimizer, of the most that a step makes, of the most
    that a reading for evaluation makes and of the state that a step hands on; tokens or images trained on; steps;
    trainings that are begun one after the other, 0 where there is one alone, whose beginning is not timed; and the work
    of training and of all evaluations."""

    parameters: float = 0
    weights: float = 0
    optimizer: float = 0
    step: float = 0
    reading: float = 0
    state: float = 0
    seen: float = 0
    steps: float = 0
    begun: float = 0
    training: Work = Work()
    evaluation: Work = Work()

    @property
    def activations(self) -> float:
        """Bytes that a step or a reading makes, whichever makes more; what a step hands on is among them."""
        return max(self.step, self.reading)

    @property
    def memory(self) -> float:
        """Bytes at the most crowded moment."""
        return self.weights + self.optimizer + self.activations

    @property
    def work(self) -> Work:
        return self.training.and_also(self.evaluation)

    def and_also(self, other: "Workload", times: float) -> "Workload":
        """This and so many times the other, one after the other or one layer more."""
        sums = {name: getattr(self, name) + times * getattr(other, name) for name in self._fields[:-2]}
        training = self.training.and_also(other.training, times)
        return Workload(**sums, training=training, evaluation=self.evaluation.and_also(other.evaluation, times))


def workload(
    config: dict[str, Any], precision: str, task: Any, build: Callable[[dict[str, Any]], nn.Module]
) -> Workload:
    """What a run of this configuration asks for; `build` makes a model from its settings.

    A model of many layers is looked at with one and with two of them: all others are like the second.
    """
    batches = sampled(task, config["training"]["steps"])
    found = Workload()
    for settings, factor in depths(config["model"]):
        with torch.device("meta"), Recall():
            model = build(settings)
        found = found.and_also(of_model(model, task, config["training"], batches), factor)
    return found._replace(
        step=in_precision(found.step, found.weights, precision), reading=in_precision(found.reading, 0, precision)
    )


def depths(settings: dict[str, Any]) -> list[tuple[dict[str, Any], int]]:
    """The model with one layer and with two, and how often each is to be counted for it to come to all layers."""
    layers = settings.get("layers", settings.get("encoder_layers", 0))
    if layers < 3:
        return [(settings, 1)]
    one, two = (deepcopy(settings) | {name: n for name in DEPTHS if name in settings} for n in (1, 2))
    return [(one, 2 - layers), (two, layers - 1)]


@lru_cache(maxsize=1)  # the models of a task are looked at one after the other
def sampled(task: Any, steps: int) -> list[Batch]:
    """The batches of a few steps, evenly over the training."""
    count = min(SAMPLED, steps)
    return [task.batch(int((index + 0.5) * steps / count)) for index in range(count)]


def of_model(model: nn.Module, task: Any, training: dict[str, Any], batches: list[Batch]) -> Workload:
    """What training and evaluating one model asks for."""
    weights = sum(parameter.nbytes for parameter in model.parameters())
    steps, accumulation = training["steps"], training.get("accumulation") or 1
    known: dict[Any, tuple[Work, int]] = {}
    work, peak, seen, states = Work(), 0, 0.0, [0]
    if hasattr(model, "initial_state"):
        model.register_forward_hook(lambda *call: states.append(sum(x.nbytes for x in leaves(call[-1][1]))))
    for batch in batches if weights else ():
        first = next(iter(batch.values()))
        pieces = min(accumulation, len(first))
        kind = tuple(tuple(tensor.shape) for tensor in batch.values())
        if kind not in known:
            known[kind] = recalled(step_of(model, task, first_piece(batch, pieces)))
        work = work.and_also(known[kind][0], pieces * steps / len(batches))
        peak = max(peak, known[kind][1])
        seen += (first.numel() if first.ndim == 2 else len(first)) * steps / len(batches)
    state = max(states)
    work = work.and_also(Work(1, 0, PASSES * weights), steps)
    model.train(False)
    times = len({*training["evaluate_at"], steps})
    evaluation = Work()
    with torch.no_grad():
        reader = Reader(model, batches)
        with Recall():
            readings = task.readings(model)
        for reading in readings:
            evaluation = evaluation.and_also(reader.work(reading), times * reading.times)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Workload(parameters, weights, MOMENTS * weights, peak, reader.peak, state, seen, steps, 0, work, evaluation)


class Reader:
    """A model on the meta device that reads; what was read once is known.

    peak: the most bytes that a piece of all readings so far makes, with the state that it is given.
    """

    def __init__(self, model: Any, batches: list[Batch]):
        self.model, self.batches, self.peak = model, batches, 0.0
        self.known: dict[tuple[int, int, bool], tuple[list[Piece], Work]] = {}

    def work(self, reading: Reading) -> Work:
        """The work of a reading, once."""
        kind = (reading.rows, reading.tokens, not reading.generated)
        looked_at = min(reading.pieces, PIECES + SHORT // reading.tokens)
        pieces, written = self.known.get(kind, ([], Work()))
        if len(pieces) < looked_at:
            pieces, written = self.known[kind] = self.read(*kind, looked_at)
        works, peaks = zip(*pieces[: reading.pieces])
        self.peak = max(self.peak, *peaks)
        later = reading.pieces - len(works)
        if later:  # each of which makes as much more as the last one looked at
            self.peak = max(self.peak, peaks[-1] + later * (peaks[-1] - peaks[-2]))
        return stream(works, reading.pieces).and_also(written, reading.generated)

    def read(self, rows: int, tokens: int, scored: bool, pieces: int) -> tuple[list[Piece], Work]:
        """What reading comes to of the first pieces, each of them, and the work of writing one token afterwards. Where
        none is written, what is read is scored."""
        device = device_of(self.model)
        if self.batches and "images" in self.batches[0]:
            images = torch.zeros(rows, *self.batches[0]["images"].shape[1:], device=device)
            return [recalled(lambda: self.model(images))], Work()
        source = torch.zeros(rows, tokens, dtype=torch.long, device=device)
        if hasattr(self.model, "encode"):
            return self.encode(source)
        source = self.model.beginning(source) if hasattr(self.model, "beginning") else source
        state, before, found = None, None, list[Piece]()
        for _ in range(pieces):
            size = [x.nbytes for x in leaves(state)]
            if size == before:  # a state that does not grow: the same again
                found.append(found[-1])
                continue
            made: list[Any] = []
            work, peak = recalled(partial(self.piece, made, source, state, scored))
            found.append((work, sum(size) + peak))
            state, before = made[0], size
        return found, Work() if scored else recalled(lambda: self.model(source[:, :1], state))[0]

    def piece(self, made: list[Any], source: torch.Tensor, state: Any, scored: bool) -> None:
        """Read a piece and score it; the state after it is added to what is made."""
        logits, after = self.model(source, state)
        made.append(after)
        if scored:
            nats(logits, source)

    def encode(self, source: torch.Tensor) -> tuple[list[Piece], Work]:
        """The same of an encoder-decoder, which reads in one piece."""
        made: list[Any] = []
        reading = recalled(lambda: made.extend(self.model.read(source)))
        seen = {"encoder_outputs": (made[0],), "attention_mask": made[1].long()}
        writing, _ = recalled(lambda: self.model.model(decoder_input_ids=source[:, :1], use_cache=False, **seen))
        return [reading], writing


def nats(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss of each target."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")


def stream(works: Sequence[Work], pieces: int) -> Work:
    """The work of reading so many pieces from that of the first ones, or of all if there are no more.

    Where the last of them asks for more products than the one before, as with a state that grows, each one after it
    asks for as much more again.
    """
    total = Work()
    for work in works:
        total = total.and_also(work)
    later = pieces - len(works)
    if later > 0:
        before, last = works[-2:]
        growth = Work(0, *(more - less for less, more in zip(before[1:], last[1:])))
        total = total.and_also(last, later)
        if growth.flops > 0:
            total = total.and_also(growth, later * (later + 1) / 2)
    return total
