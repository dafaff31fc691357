"""What a run of a configuration needs, worked out on the meta device and cached by its settings and the code."""

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import OmegaConf
from torch.nn import functional as F

from experiments.config.build import build
from experiments.config.cache import DiskCache
from experiments.config.choices import ON_GPUS, file_of
from experiments.cost.memory import MIXED, MOMENTS, first_piece, step_bytes, step_of
from experiments.cost.op_tracer import OpTracer, Trace, trace
from experiments.cost.synthetic_data import task_of, without_checkpoint
from models.state import leaves
from tasks.base import Reading

cached = DiskCache("estimates", "models", "tasks", "experiments/cost")
SAMPLED = 6  # steps of a training that stand for all of them
DEPTHS = ("layers", "encoder_layers", "decoder_layers")  # settings of models whose layers are alike, but for one
PASSES, OPERATIONS = 10, 12  # of clipping and optimizer in a step: over all weights, and for each of their tensors
READ = 1.5  # of the largest operation's tensors are there when one reads for evaluation
SUMMARISED = 1000  # documents of a test split, at most


class Estimate(NamedTuple):
    """What a run needs: trained parameters; bytes at the most crowded moment; and the FLOP, operations and bytes moved
    of training and all evaluations."""

    parameters: float = 0
    memory: float = 0
    flops: float = 0
    operations: float = 0
    bytes: float = 0


def estimates(runs: Sequence[tuple[dict[str, Any], str]]) -> list[Estimate]:
    """What runs need, each given by its configuration and its precision."""
    parts = [trainings(config, precision) for config, precision in runs]
    missing = {settings for own in parts for settings, _ in own} - cached.values.keys()
    # One that reads a text in hundreds of windows is begun first; the models of a task follow each other.
    order = sorted(missing, key=lambda settings: ("EncoderDecoder" not in settings, settings))
    for settings, found in zip(order, on_all_cores(estimate, order)):
        cached.add(settings, found)
    return [together([(Estimate(*cached.values[settings]), times) for settings, times in own]) for own in parts]


def on_all_cores(call: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """The results of a call on each item, in a process per core."""
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)  # everything is imported
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), context, begin_process) as pool:
        return list(pool.map(call, items))


def begin_process() -> None:
    """Compute on one thread, since a fork has no others and would wait for them, and leave Ctrl-C to the parent."""
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def together(parts: list[tuple[Estimate, float]]) -> Estimate:
    """All trainings of a run, so often each: what they need is added up, and the largest decides on the memory."""
    values, times = np.array([needed for needed, _ in parts]), np.array([times for _, times in parts])
    return Estimate(*map(float, [*values[:, :2].max(0), *times @ values[:, 2:]]))


def trainings(config: dict[str, Any], precision: str) -> list[tuple[str, float]]:
    """All that the cost of a run depends on, as JSON, once; of a search that of each kind of training, and how often.

    One activation stands for all, as one seed does: of image networks, which are trained with many that torch has no
    single function for, one that is made of several. Plain rotary positions stand for those that are scaled.
    """
    config, search, training = without_checkpoint(config), config["search"], config["training"]
    image = "ImageClassification" in config["task"]["_target_"]
    activation = "atan_squared_minus_x" if search else "swish" if image else "silu"
    stands = {"activation": activation} | ({"position": "rope"} if config["extension"] > 1 else {})
    nodes = {group: OmegaConf.to_container(OmegaConf.load(file_of(group, x))) for group, x in stands.items()}
    model = config["model"] | {group: node for group, node in nodes.items() if group in config["model"]}
    task = config["task"] | ({"seed": 0} if "seed" in config["task"] else {})
    kinds = [(task, model, training["steps"], 1)]
    if search:
        retrained = (2 + search["keep"]) * search["repeats"]  # the best, and two known
        larger = [(task, model | size, search["larger_steps"], retrained) for size in search["larger"]]
        kinds = [(task, model, training["steps"], search["trials"] + 2), *larger]
    other = training.get("accumulation") or 1, precision, config["scale"] in ON_GPUS
    return [
        (json.dumps([config["data"], own, size, steps, len({*training["evaluate_at"], steps}), *other]), times)
        for own, size, steps, times in kinds
    ]


def estimate(settings: str) -> Estimate:
    """What one training, as JSON, needs. Of a model of many layers those with one and with two are looked at: all
    further layers are like the second."""
    data, task_settings, model_settings, steps, evaluations, pieces, precision, on_gpu = json.loads(settings)
    task = task_of(json.dumps(data), json.dumps(task_settings))
    layers = model_settings.get("layers", model_settings.get("encoder_layers", 0))
    depths = [(1, 2 - layers), (2, layers - 1)] if layers > 2 else [(layers, 1)]
    total = np.zeros(1 + len(Estimate._fields))
    for depth, times in depths:
        known = {name: depth for name in DEPTHS if name in model_settings and layers > 2}
        with torch.device("meta"), OpTracer(on_gpu):
            model = build(model_settings | known, **task.model_arguments)
        found = of_training(model, task, steps, pieces, precision, on_gpu)
        work, read = of_evaluation(model.train(False), task, task_settings.get("evaluation_documents", 0), on_gpu)
        weights = sum(x.nbytes for x in model.parameters())
        read = (1 + MOMENTS) * weights + read * (MIXED if precision == "bf16" else 1)
        total += times * np.array([found.parameters, found.memory, read, *(found[2:] + evaluations * work)])
    parameters, training, reading, *works = map(float, total)
    return Estimate(parameters, max(training, reading), *works)


def of_training(model: Any, task: Any, steps: int, pieces: int, precision: str, on_gpu: bool) -> Estimate:
    """What so many steps need, whose batches go through the model in so many pieces."""
    tensors, memory, known = list(model.parameters()), 0.0, dict[Any, Trace]()
    weights, count = sum(x.nbytes for x in tensors), min(SAMPLED, steps) if tensors else 0
    work = np.array([0, OPERATIONS * len(tensors), PASSES * weights]) * float(steps)
    for batch in [task.batch(int((index + 0.5) * steps / count)) for index in range(count)]:
        shapes = tuple(x.shape for x in batch.values())
        if shapes not in known:
            known[shapes] = trace(step_of(model, task, first_piece(batch, pieces)), on_gpu)
        work += known[shapes].work * min(pieces, len(next(iter(batch.values())))) * steps / count
        memory = max(memory, (1 + MOMENTS) * weights + step_bytes(known[shapes], weights, precision))
    return Estimate(sum(x.numel() for x in tensors), memory, *work)


@torch.no_grad()
def of_evaluation(model: Any, task: Any, documents: int, on_gpu: bool) -> tuple[np.ndarray, float]:
    """The work of an evaluation, of so many documents where they are to be summarised, and the bytes that its largest
    reading makes in float32."""
    with OpTracer(on_gpu):
        readings = task.readings(model)
    share = min(SUMMARISED, documents) / len(task.test_pairs) if hasattr(task, "test_pairs") else 1
    growing = grows(model, max((reading.tokens for reading in readings if reading.pieces > 1), default=0))
    total, most, known = np.zeros(3), 0.0, dict[Reading, Any]()
    for reading in readings:
        kind = reading._replace(times=1, pieces=reading.pieces if growing else min(reading.pieces, 2))
        if kind not in known:
            known[kind] = of_reading(model, kind, task.batch(0).get("images"), on_gpu)
        piece, token, size = known[kind]
        total += share * reading.times * (reading.pieces * piece + reading.generated * token)
        most = max(most, size)
    return total, most


def of_reading(model: Any, reading: Reading, images: Any, on_gpu: bool) -> tuple[Any, Any, float]:
    """The work of a piece and of a token generated after it, and the bytes that a piece makes.

    The piece in the middle stands for all. Where no token is generated, what is read is scored.
    """
    source, token = torch.zeros(reading.rows, reading.tokens, dtype=torch.long, device="meta"), np.zeros(3)
    if images is not None:
        source = torch.zeros(reading.rows, *images.shape[1:], device="meta")
    elif hasattr(model, "truncate"):
        source = model.truncate(source)
    before = reading.tokens * (reading.pieces - 1) // 2
    state = model(source[:, :1].repeat(1, before))[1] if before else None

    def read() -> Any:
        if images is not None or hasattr(model, "encode"):  # an encoder-decoder reads in one piece
            return model(source) if images is not None else model.read(source)
        logits, after = model(source, state)
        if not reading.generated:
            F.cross_entropy(logits.flatten(0, 1).float(), source.flatten(), reduction="none")
        return after

    made = list[Any]()
    piece = trace(lambda: made.append(read()), on_gpu)
    if hasattr(model, "encode"):
        seen = {"encoder_outputs": (made[0][0],), "attention_mask": made[0][1].long(), "use_cache": False}
        token = trace(lambda: model.model(decoder_input_ids=source[:, :1], **seen), on_gpu).work
    elif reading.generated:
        token = trace(lambda: model(source[:, :1], made[0]), on_gpu).work
    return piece.work, token, READ * piece.largest + 2 * bytes_of(state)


def grows(model: Any, tokens: int) -> bool:
    """Whether a state is larger after two pieces of so many tokens, if any, than after one."""
    source, state = torch.zeros(1, tokens, dtype=torch.long, device="meta"), None
    return len({bytes_of(state := model(source, state)[1]) for _ in range(2 if tokens else 0)}) > 1


def bytes_of(state: Any) -> int:
    """The bytes of a carried state."""
    return sum(x.nbytes for x in leaves(state))
