"""The configuration: its schema, how it is composed, and what is wrong with it in one line."""

import copy
import difflib
import inspect
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import pydantic
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from experiments.kept_files import KeptFiles

CONF = Path(__file__).resolve().parent.parent / "conf"
PACKAGES = ("models", "tasks", "experiments", "torch", "transformers")  # what a _target_ may name


class ConfigError(ValueError):
    """A configuration that cannot be run; the message is one line with what was wrong and what would be right."""


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


Strategy = Enum("Strategy", ["random", "exhaustive", "evolutionary", "model_based"])


@dataclass
class Search:
    """How activation functions are searched for; see experiments/search.py.

    units: core units of a function, 1 or 2. trials: functions to train the child network with. max_operations: what a
    function may cost. workers: children that train at a time. keep: how many of the best are trained again, in each of
    the `larger` sizes (settings of the model) for `larger_steps` steps, `repeats` times with fresh seeds.
    """

    strategy: Strategy = MISSING
    units: int = MISSING
    trials: int = MISSING
    max_operations: int = MISSING
    workers: int = MISSING
    keep: int = MISSING
    larger: list[dict[str, int]] = MISSING
    larger_steps: int = MISSING
    repeats: int = MISSING


@dataclass
class Tracking:
    """Where runs are logged. mode: offline, online or disabled."""

    mode: Mode = MISSING
    project: str = MISSING
    entity: str | None = None


@dataclass
class Config:
    """A run. The parts that hold a _target_ have its signature for a schema."""

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
    search: Search | None = None
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
    """What conf/config.yaml is the root of; bases are read from the last to the first."""


def dataset(kind: str, *, _root_: DictConfig) -> Any:
    """The data set of a kind at the run's scale: ${dataset:text} in a defaults list, which cannot read settings."""
    offered = scale_file(CONF / "scale" / f"{_root_.scale}.yaml").get("datasets", {})
    if kind not in offered:
        raise ConfigError(f"conf/scale/{_root_.scale}.yaml has no datasets.{kind}, which the experiment needs")
    return offered[kind]


@cache
def scale_file(path: Path) -> DictConfig:
    """A file of conf/scale, with what it takes from the scales that its own defaults name."""
    file: Any = OmegaConf.load(path)
    bases = (scale_file(path.with_stem(base)) for base in file.get("defaults", []) if base in groups()["scale"])
    return OmegaConf.merge(*bases, file)  # type: ignore[return-value]


def quotient(dividend: int, divisor: int) -> int:
    """How often one number goes into the other, once at least: ${quotient:2048,${task.length}} rows of a batch."""
    return max(1, dividend // divisor)


def register() -> None:
    """Make the schema and the resolvers known to Hydra; safe to call again."""
    ConfigStore.instance().store(name="schema", node=Root)
    OmegaConf.register_new_resolver("dataset", dataset, replace=True)
    OmegaConf.register_new_resolver("quotient", quotient, replace=True)


def compose(overrides: Sequence[str], return_hydra_config: bool = False, root: str = "config") -> DictConfig:
    """The configuration for these overrides, from conf/<root>.yaml on. Raises ConfigError."""
    check_overrides(overrides, root=root)
    return compose_unchecked(overrides, return_hydra_config, root)


def compose_unchecked(overrides: Sequence[str], return_hydra_config: bool = False, root: str = "config") -> DictConfig:
    """The same without looking at the overrides first."""
    try:
        composed = hydra_at_conf().compose_config(root, list(overrides), RunMode.RUN, from_shell=False)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(first_line(error)) from error
    if not return_hydra_config:
        with open_dict(composed):
            del composed["hydra"]
    return composed


@cache
def hydra_at_conf() -> Hydra:
    """Hydra over conf/, beside one that already runs."""
    register()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        found = GlobalHydra.instance().hydra
    assert found is not None
    found.config_loader.repository = KeptFiles(found.config_loader.get_search_path())  # type: ignore[attr-defined]
    return found


def first_line(error: BaseException) -> str:
    """An error of Hydra or OmegaConf as one line, with the key it is about; one of ours that is behind it as it is."""
    behind = error.__cause__ or error.__context__
    while behind is not None and not isinstance(behind, ConfigError):
        behind = behind.__cause__ or behind.__context__
    if behind is not None:
        return str(behind)
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    line = str(cause).strip().splitlines()[0]
    key = getattr(cause, "full_key", None)
    return f"{key}: {line}" if key and key not in line else line


def groups() -> dict[str, list[str]]:
    """The groups of conf/ and the choices of each."""
    return {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
        for folder in sorted(CONF.iterdir())
        if folder.is_dir() and any(folder.glob("*.yaml"))
    }


def groups_of(root: str) -> dict[str, list[str]]:
    """The groups that conf/<root>.yaml is made of."""
    defaults = OmegaConf.load(CONF / f"{root}.yaml").defaults
    named = {name for entry in defaults if isinstance(entry, DictConfig) for name in map(str, entry)}
    return {name: choices for name, choices in groups().items() if name in named}


def nearest(word: str, words: Sequence[str]) -> str:
    """A hint at the most similar of `words`, or at all of them if none is similar."""
    similar = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"the nearest is '{similar[0]}'" if similar else f"there are {', '.join(words)}"


def check_overrides(overrides: Sequence[str], multirun: bool = False, root: str = "config") -> None:
    """Raise ConfigError for an unknown key, group or choice, a value of the wrong type, or an unasked-for sweep."""
    parsed = [parse(override) for override in overrides]
    for override in parsed:
        if override.is_sweep_override() and not multirun:
            raise ConfigError(f"'{override.input_line}' names several values: add -m to run them all")
    known = groups_of(root)
    chosen, values = [], []
    for override in parsed:
        key = override.key_or_group
        if key in known:
            for choice in map(str, values_of(override)):
                if choice not in known[key] and choice != "null":
                    raise ConfigError(f"{key}={choice}: no such choice; {nearest(choice, known[key])}")
            chosen.append(f"{key}={next(iter(values_of(override)))}")
        elif not key.startswith("hydra"):
            values.append(override)
    composed = compose_unchecked(chosen, root=root)
    keys = list(flatten(composed))
    for override in values:
        key = override.key_or_group
        if not (override.is_add() or override.is_force_add()) and key not in keys:
            raise ConfigError(f"unknown key '{key}'; {nearest(key, [*known, *filter(is_setting, keys)])}")
        tried = copy.deepcopy(composed)  # composed once: Hydra takes a tenth of a second for it
        for value in values_of(override):
            plain(put_in(tried, parse(f"{(override.input_line or '').split('=')[0]}={value}")), complete=False)


def put_in(config: DictConfig, override: Override) -> DictConfig:
    """The configuration with the value of an override in its place, as Hydra puts it there. Raises ConfigError."""
    added = override.is_add() or override.is_force_add()
    try:
        OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=added)
    except OmegaConfBaseException as error:
        raise ConfigError(first_line(error)) from error
    return config


def quote_text(override: str) -> str:
    """An override of a text, in the quotes that Hydra wants around what it would read as a call of its own."""
    key, _, value = override.partition("=")
    return f"{key}='{value}'" if key.endswith(".text") and not {"'", '"'} & set(value) else override


def parse(override: str) -> Override:
    """An override as Hydra reads it. Raises ConfigError."""
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException as error:
        raise ConfigError(f"'{override}' is not key=value: {first_line(error)}") from error


def values_of(override: Override) -> Iterator[Any]:
    """The values that an override stands for: one, those of its sweep, or the ends of its interval."""
    if override.is_interval_sweep():
        interval: Any = override.value()
        yield from (interval.start, interval.end)
    elif override.is_sweep_override():
        yield from override.sweep_string_iterator()
    elif not override.is_delete():
        yield override.get_value_element_as_str()


def flatten(node: Any, prefix: str = "") -> Iterator[str]:
    """Every key of a configuration, with dots."""
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
        for key in node:
            path = f"{prefix}{key!s}"
            yield path
            if not OmegaConf.is_interpolation(node, str(key)) and not OmegaConf.is_missing(node, key):
                yield from flatten(node[key], f"{path}.")


def is_setting(key: str) -> bool:
    """Whether a key is a part of the plain configuration, and not what settings read of the scale."""
    return key.split(".")[0] not in Scale.__annotations__


def plain(config: DictConfig, complete: bool = True) -> dict[str, Any]:
    """The configuration as plain containers, all interpolations resolved.

    Raises ConfigError where the experiment has no row for the scale, where a node with a _target_ does not fit that
    target's signature, and where a value is missing in what is to be complete.
    """
    try:
        if config.get("scales") and config.scaled is None:
            offered = ", ".join(map(str, config.scales))
            raise ConfigError(f"scale={config.scale} is not planned here; choose one of {offered}")
        found: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=complete, enum_to_str=True)
    except OmegaConfBaseException as error:
        raise ConfigError(first_line(error)) from error
    found = {key: node for key, node in found.items() if is_setting(str(key))}
    for key, node in found.items():
        if isinstance(node, dict):
            check_call(node, str(key))
    if "training" in found:
        found["training"] = {name: value for name, value in found["training"].items() if value is not None}
    return found


def check_call(node: dict[str, Any], path: str) -> None:
    """Raise ConfigError where a node does not fit the signature of its _target_."""
    target = node.get("_target_")
    if target is None:
        return
    if target.split(".")[0] not in PACKAGES:
        raise ConfigError(f"{path}._target_={target} is outside of {', '.join(PACKAGES)}")
    try:
        callable_ = hydra.utils.get_object(target)
    except Exception as error:
        raise ConfigError(f"{path}._target_={target} cannot be found: {first_line(error)}") from error
    names, hints = arguments_of(callable_)
    for key, value in node.items():
        if key.startswith("_"):
            continue
        if key not in names:
            raise ConfigError(f"{path}.{key} is not a setting of {target}; {nearest(key, names)}")
        if isinstance(value, dict) and "_target_" in value:
            check_call(value, f"{path}.{key}")
        elif not target.startswith(("torch.", "transformers.")):
            check_value(value, hints.get(key, Any), f"{path}.{key}")


@cache
def arguments_of(target: Any) -> tuple[list[str], dict[str, Any]]:
    """The arguments that a class or function takes, and their types."""
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    return [name for name in inspect.signature(target).parameters if name != "self"], hints


adapter = cache(pydantic.TypeAdapter)  # of a type


def check_value(value: Any, annotation: Any, path: str) -> None:
    """Raise ConfigError where a value is not of the annotated type."""
    try:
        adapter(annotation).validate_python(value)
    except pydantic.errors.PydanticSchemaGenerationError:
        return  # a type of ours, which only a node with a _target_ can make
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        where = ".".join([path, *map(str, problem["loc"])])
        raise ConfigError(f"{where}={problem['input']!r}: {problem['msg']}") from error
