"""What planned runs ask for: each kind of training found out once, on all processor cores, and kept for the next
plan."""

import contextlib
import json
from functools import cache, partial
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from experiments.config.build import build
from experiments.config.choices import CONF
from experiments.config.pool import of_all
from experiments.cost.recall import fused_attention
from experiments.cost.stand_in import task_of, without_checkpoint
from experiments.cost.trace import Work
from experiments.cost.workload import Workload, workload
from experiments.sweeps.grid import ON_GPUS
from experiments.training.run_spec import RunSpec
from tasks.data.source import write_atomically

FILE = CONF.parent / "outputs" / "cache" / "workloads.json"
SEARCHED = "tanh(x) * sigmoid(x ** 2)"  # a function of the kind that a search tries
Part = tuple[str, float]  # all that a training's work depends on, as JSON, and how often a run does it


def loads_of(plans: list[RunSpec]) -> list[Workload]:
    """What each of the runs asks for."""
    parts = [parts_of(planned) for planned in plans]
    known = kept()
    missing: dict[str, list[str]] = {}  # by the kind of their task, so that one process learns its operations
    for settings in dict.fromkeys(settings for own in parts for settings, _ in own):
        if settings not in known:
            missing.setdefault(json.loads(settings)[1]["_target_"], []).append(settings)
    if missing:
        slow = "EncoderDecoder"  # which reads a text in hundreds of windows, each of them looked at: it is begun first
        groups = sorted(missing.values(), key=lambda group: (slow in group[-1], len(group)), reverse=True)
        for group, found in zip(groups, of_all(found_out, groups)):
            known |= dict(zip(group, found))
        with contextlib.suppress(OSError):  # where nothing can be kept, everything is found out again
            write_atomically(FILE, json.dumps({"code": code(), "loads": known}).encode())
    return [together([(known[settings], times) for settings, times in own]) for own in parts]


def kept() -> dict[str, Workload]:
    """What was found out before by the code as it is."""
    try:
        found = json.loads(FILE.read_bytes())
        own = found["loads"] if found["code"] == code() else {}
    except (OSError, ValueError):
        return {}
    return {key: Workload(*values[:-2], *(Work(*work) for work in values[-2:])) for key, values in own.items()}


def code() -> str:
    """The fingerprint of all code that a workload depends on."""
    return "planning"


def parts_of(planned: RunSpec) -> list[Part]:
    """The training that a run consists of; of a search, all that it trains."""
    config, search = without_checkpoint(planned.config), planned.config["search"]
    trainings: list[tuple[dict[str, Any], float]] = [(config, 1)]
    if search is not None:
        retrained = (2 + search["keep"]) * search["repeats"]  # the best, and two that people made
        final = {"task": config["task"] | {"held_out": 0.0}}
        final["training"] = config["training"] | {"steps": search["larger_steps"]}
        larger = [(config | final | {"model": config["model"] | size}, retrained) for size in search["larger"]]
        trainings = [(config, search["trials"] + 2), *larger]
    return [(settings_of(one, planned.record.identity["precision"]), times) for one, times in trainings]


def settings_of(config: dict[str, Any], precision: str) -> str:
    """All that a training's work depends on. One activation stands for all, as one seed does: of image networks, which
    are trained with many that torch has no single operation for, one that is made of several, and of a search one
    that is made of as many as those it tries."""
    if config["search"]:
        activation = chosen("expression", text=SEARCHED)
    else:
        activation = chosen("swish" if "ImageClassification" in config["task"]["_target_"] else "silu")
    model = config["model"] | ({"activation": activation} if "activation" in config["model"] else {})
    task = config["task"] | ({"seed": 0} if "seed" in config["task"] else {})
    training = {name: config["training"].get(name) for name in ("steps", "evaluate_at", "accumulation")}
    return json.dumps(
        [config["data"], task, {"model": model, "training": training}, precision, config["scale"] in ON_GPUS]
    )


@cache
def chosen(activation: str, **settings: str) -> Any:
    """An activation as conf/ has it, but for these settings."""
    written = OmegaConf.load(CONF / "activation" / f"{activation}.yaml")
    return OmegaConf.to_container(OmegaConf.merge(written, settings))


def found_out(group: list[str]) -> list[Workload]:
    """What trainings on tasks of a kind ask for."""
    loads = []
    for settings in group:
        data, asked, config, precision, on_gpu = json.loads(settings)
        task = task_of(json.dumps(data), json.dumps(asked))
        with fused_attention(on_gpu):
            loads.append(workload(config, precision, task, partial(model_of, task)))
    return loads


def model_of(task: Any, settings: dict[str, Any]) -> nn.Module:
    """A model for a task."""
    return build(OmegaConf.create(settings), **task.model_arguments)


def together(parts: list[tuple[Workload, float]]) -> Workload:
    """All trainings of a run, one after the other: their work is added up, and the largest decides on the memory."""
    total = Workload()
    for load, times in parts:
        total = total.and_also(load, times)
    sizes = {name: max(getattr(load, name) for load, _ in parts) for name in Workload._fields[:6]}
    return total._replace(**sizes, begun=sum(times for _, times in parts) if len(parts) > 1 else 0)
