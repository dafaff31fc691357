"""The schema of a configuration, and the resolvers of its interpolations."""

import os
import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from experiments.config.choices import file_of, groups
from experiments.config.errors import ConfigError
from experiments.config.plugins import packages

Precision = StrEnum("Precision", ["auto", "bf16", "fp32"])


Mode = StrEnum("Mode", ["offline", "online", "disabled"])
Goal = StrEnum("Goal", ["minimize", "maximize"])
Debug = StrEnum("Debug", ["overfit", "profile", "anomaly"])
Artifacts = StrEnum("Artifacts", ["none", "small", "all"])
# W&B's own environment variables that conf/tracking/wandb.yaml reads.
SWITCHES = ("WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_RUN_GROUP", "WANDB_TAGS", "WANDB_NOTES")


def accepted_by_wandb(name: str) -> str:
    """The name of a project or an entity. Raises ValueError for one that W&B refuses."""
    if not re.fullmatch(r"[^/\\#?%:]{1,128}", name):
        raise ValueError("W&B takes 1 to 128 characters, and none of / \\ # ? % :")
    return name


WandbName = Annotated[str, AfterValidator(accepted_by_wandb)]
Processors = Annotated[PositiveInt, Field(le=4096)]
Rate = Annotated[PositiveFloat, Field(le=1000)]
Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass
class Group:
    """Parameters that are trained at a rate of their own.

    ends: of the parameters' names. lr: the learning rate, which follows the schedule as the optimizer's own does.
    """

    ends: list[str] = MISSING
    lr: Rate = MISSING
    weight_decay: NonNegativeFloat = 0.0


@dataclass
class Training:
    """How a model is trained, whatever it is.

    initial_gain: what initial weights are multiplied by. groups: the parameters that have a learning rate of their own,
    by the kind of part. evaluate_at: steps, besides the last, after which the task's evaluation is run. precision: auto
    is bf16 where that is faster and fp32 elsewhere. accumulation: pieces that a batch goes through the model in, one
    after the other; None for all of it at once. compile: whether the model's code is compiled. shard: whether each of
    several processes holds a part of every weight (FSDP) and not all of them. recompute: whether layers keep only their
    inputs for the backward pass, which computes the rest again; None: if a step would not fit into memory otherwise.
    debug: how the training is looked into, see training/debugging.py. A setting that is None is no part of the plain
    configuration, so that runs from before there was one are still the same runs.
    """

    steps: NonNegativeInt = MISSING
    initial_gain: PositiveFloat = MISSING
    groups: dict[str, Group] = field(default_factory=dict)
    clip: PositiveFloat = MISSING
    precision: Precision = MISSING
    evaluate_at: list[NonNegativeInt] = field(default_factory=list)
    log_every: PositiveInt = MISSING
    checkpoint_every: PositiveInt = MISSING
    accumulation: PositiveInt | None = None
    compile: bool | None = None
    shard: bool | None = None
    recompute: bool | None = None
    debug: Debug | None = None


@dataclass
class Tracking:
    """Where runs are logged, and under what. mode: offline, online or disabled. tags: beside those of the run.
    artifacts: none, small (all but weights) or all."""

    mode: Mode = MISSING
    project: WandbName = MISSING
    entity: WandbName | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    artifacts: Artifacts = MISSING


@dataclass
class Tuning:
    """How each level of an experiment gets its own learning rate: by the best validation metric over so many seeds."""

    metric: str = MISSING
    goal: Goal = MISSING
    seeds: NonNegativeInt = MISSING


@dataclass
class Optimizer:
    """The ranges of an optimizer's settings, whichever library it is from; its constructor has their types."""

    lr: Rate | None = None
    weight_decay: NonNegativeFloat = 0.0
    momentum: Share = 0.0
    betas: list[Share] = field(default_factory=list)


@dataclass
class Config:
    """A run. The parts that hold a _target_ have its signature for a schema."""

    name: str = MISSING
    seed: NonNegativeInt = MISSING
    scale: str = MISSING
    outputs: str = MISSING
    cache: str = MISSING
    segment_length: PositiveInt = MISSING
    trained_length: PositiveInt = MISSING
    extension: PositiveInt = MISSING
    start: list[str] | None = None
    threads: Processors | None = None
    plugins: list[str] = field(default_factory=list)
    model: Any = MISSING
    attention: Any = MISSING
    position: Any = MISSING
    feedforward: Any = MISSING
    activation: Any = MISSING
    task: Any = MISSING
    data: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    training: Training = field(default_factory=Training)
    search: Any = None
    tuning: Tuning | None = None
    tracking: Tracking = field(default_factory=Tracking)


@dataclass
class Scale:
    """What settings read of the run's scale by interpolation; the plain configuration has none of it.

    sizes: of what experiments share, from conf/scale/<scale>.yaml. datasets: there too, the data set of each kind.
    scales: the experiment's own table, a row for each scale. row: whose row is read where there is none for the run's
    scale. scaled: the row that is read.
    """

    sizes: Any = MISSING
    datasets: Any = MISSING
    scales: Any = None
    row: str = MISSING
    scaled: Any = MISSING


@dataclass
class Root(Scale, Config):
    """The root of conf/config.yaml; bases are read from the last to the first."""


def dataset(kind: str, *, _root_: DictConfig) -> Any:
    """The data set of a kind at the run's scale: ${dataset:text} in a defaults list, which cannot read settings."""
    file = file_of("scale", _root_.scale)
    offered = scale_file(file).get("datasets", {})
    if kind not in offered:
        raise ConfigError(f"conf/scale/{file.name} has no datasets.{kind}, which the experiment needs")
    return offered[kind]


@cache
def scale_file(path: Path) -> DictConfig:
    """A file of conf/scale, with what it takes from the scales that its own defaults name."""
    file: Any = OmegaConf.load(path)
    bases = (scale_file(file_of("scale", base)) for base in file.get("defaults", []) if base in groups()["scale"])
    return OmegaConf.merge(*bases, file)  # type: ignore[return-value]


def quarters(steps: int) -> list[int]:
    """The steps after a quarter and a half of a training, to see whether an effect lasts."""
    return [step for step in (steps // 4, steps // 2) if step]


def switch(name: str, default: str | None = None) -> str | None:
    """The value of an environment variable in SWITCHES; the default if it is not set or empty."""
    return os.environ.get(name) or default


def switches() -> list[str]:
    """The environment variables in SWITCHES that are set, as NAME=value."""
    return [f"{name}={os.environ[name]}" for name in SWITCHES if os.environ.get(name)]


def words(text: str | None) -> list[str]:
    """The words of a text with commas between them."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def register() -> None:
    """Make the schema and the resolvers known to Hydra; safe to call again."""
    ConfigStore.instance().store(name="schema", node=Root)
    OmegaConf.register_new_resolver("dataset", dataset, replace=True)
    OmegaConf.register_new_resolver("plugins", lambda: list(packages()), replace=True)
    OmegaConf.register_new_resolver("quarters", quarters, replace=True)
    OmegaConf.register_new_resolver("switch", switch, replace=True)
    OmegaConf.register_new_resolver("words", words, replace=True)
