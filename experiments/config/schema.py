"""The schema of a configuration, and the resolvers of its interpolations."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from experiments.config.errors import ConfigError

Precision = Enum("Precision", ["auto", "bf16", "fp32"])


Mode = Enum("Mode", ["offline", "online", "disabled"])


@dataclass
class Training:
    """How a model is trained, whatever it is.

    initial_gain: what initial weights are multiplied by.
    evaluate_at: steps, besides the last, after which the task's evaluation is run. precision: auto is bf16 where the
    processor has it and fp32 elsewhere. accumulation: pieces that a batch goes through the model in, one after the
    other; None for all of it at once. compile: whether the model's code is compiled. shard: whether each of several
    processes holds a part of every weight (FSDP) and not all of them. A setting that is None is no part of the plain
    configuration, so that runs from before there was one are still the same runs.
    """

    steps: int = MISSING
    initial_gain: float = MISSING
    gate_learning_rate: float = MISSING
    gate_weight_decay: float = MISSING
    clip: float = MISSING
    precision: Precision = MISSING
    evaluate_at: list[int] = field(default_factory=list)
    log_every: int = MISSING
    checkpoint_every: int = MISSING
    accumulation: int | None = None
    compile: bool | None = None
    shard: bool | None = None


@dataclass
class Tracking:
    """Where runs are logged. mode: offline, online or disabled."""

    mode: Mode = MISSING
    project: str = MISSING
    entity: str | None = None


@dataclass
class Config:
    """The root. The parts that hold a _target_ have its signature for a schema."""

    name: str = MISSING
    seed: int = MISSING
    scale: str = MISSING
    outputs: str = MISSING
    cache: str = MISSING
    segment_length: int = MISSING
    trained_length: int = MISSING
    extension: int = MISSING
    start: list[str] | None = None
    threads: int | None = None
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
    tracking: Tracking = field(default_factory=Tracking)


def at_scale(values: DictConfig, *, _root_: DictConfig) -> Any:
    """The value for the run's scale: ${at_scale:{smoke: 8, laptop: 600}}."""
    if _root_.scale not in values:
        raise ConfigError(f"scale={_root_.scale} is not planned here; choose one of {', '.join(map(str, values))}")
    return values[_root_.scale]


def quotient(dividend: int, divisor: int) -> int:
    """How often one number goes into the other, once at least: ${quotient:2048,${task.length}} rows of a batch."""
    return max(1, dividend // divisor)


def register() -> None:
    """Make the schema and the resolvers known to Hydra; safe to call again."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("at_scale", at_scale, replace=True)
    OmegaConf.register_new_resolver("quotient", quotient, replace=True)
