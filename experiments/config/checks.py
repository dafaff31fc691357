"""Validate a composed configuration against the signatures of its targets."""

import dataclasses
import inspect
import math
import re
import shutil
import typing
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import hydra
import pydantic
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config.choices import nearest
from experiments.config.errors import ConfigError, first_line
from experiments.config.schema import Config, Optimizer, Scale
from experiments.config.targets import check_targets

# Whether the program calls the `_target_` of these nodes itself; the parts of a model are what its signature says.
PARTIAL = {"model": False, "task": False, "data": False, "optimizer": True, "schedule": False, "search": False}
SHOWN = 100  # characters of a value in an error message
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")  # of an experiment, which is a folder of its runs
LARGEST = 2**32 - 1  # of any number; a larger one would overflow somewhere


def flatten(node: Any, prefix: str = "") -> Iterator[str]:
    """Every key of a configuration as a dotted path."""
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
        for key in node:
            path = f"{prefix}{key!s}"
            yield path
            if not OmegaConf.is_interpolation(node, str(key)) and not OmegaConf.is_missing(node, key):
                yield from flatten(node[key], f"{path}.")


def is_setting(key: str) -> bool:
    """Whether a key is a setting of the run, not one of the sizes and tables that settings read at its scale."""
    return key.split(".")[0] not in Scale.__annotations__


def plain(config: DictConfig, complete: bool = True) -> dict[str, Any]:
    """The configuration as plain dicts and lists, with all interpolations resolved.

    Raises ConfigError if a key is not in the schema, if the experiment has no row for the scale, if a `_target_` may
    not be called, if a node does not match the signature of its `_target_`, if a number is out of its range, if the
    name is no name of a folder, or, if
    `complete`, a value is missing.
    """
    check_keys(config)
    try:
        if config.get("scales") and config.scaled is None:
            offered = ", ".join(map(str, config.scales))
            raise ConfigError(f"scale={config.scale} is not available for this experiment; choose one of {offered}")
        result: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=complete, enum_to_str=True)
    except OmegaConfBaseException as error:
        raise ConfigError(first_line(error)) from error
    result = {key: node for key, node in result.items() if is_setting(str(key))}
    check(result)
    if "training" in result:
        result["training"] = {name: value for name, value in result["training"].items() if value is not None}
    return result


def check(config: dict[str, Any]) -> None:
    """Raise ConfigError for plain settings that must not be built, do not fit their targets or are out of range."""
    check_recorded(config)
    check_numbers(config)
    check_value({key: value for key, value in config.items() if value != MISSING}, Config)
    check_value(config.get("optimizer") or {}, Optimizer, "optimizer")
    for key, node in config.items():
        if isinstance(node, dict):
            check_call(node, str(key), PARTIAL.get(str(key)))


def check_keys(node: DictConfig, path: str = "") -> None:
    """Raise ConfigError for a key, added with a plus, that is not in the schema and that nothing would read."""
    schema: Any = OmegaConf.get_type(node)
    known = [entry.name for entry in dataclasses.fields(schema)] if dataclasses.is_dataclass(schema) else [*node]
    for key in map(str, node):
        if key not in known:
            raise ConfigError(f"unknown key '{path}{key}'; {nearest(key, known)}")
        if not OmegaConf.is_interpolation(node, key) and isinstance(inner := node.get(key), DictConfig):
            check_keys(inner, f"{path}{key}.")


def check_recorded(config: dict[str, Any]) -> None:
    """Raise ConfigError for a recorded configuration, perhaps of someone else, that must not be built."""
    check_targets(config)
    check_name(config)


def check_name(config: dict[str, Any]) -> None:
    """Raise ConfigError for the name of an experiment that is no name of a folder, or outputs that are nowhere."""
    if config.get("outputs") == "":
        raise ConfigError("outputs is empty: give the folder for the records, such as outputs=outputs")
    if "name" in config and not NAME.fullmatch(str(config["name"])):
        raise ConfigError(f"name={config['name']}: a name has letters, digits, '.', '_' and '-', and no folders")


def check_numbers(node: Any, path: str = "") -> None:
    """Raise ConfigError for a number, anywhere in nested settings, that is not finite or beyond LARGEST."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            check_numbers(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, int | float) and not (math.isfinite(node) and abs(node) <= LARGEST):
        raise ConfigError(f"{path}={node}: a number must be finite, and at most {LARGEST:,}")


def check_call(node: dict[str, Any], path: str, partial: bool | None = None) -> None:
    """Raise ConfigError if a node does not match the signature of its `_target_`.

    partial: whether what the node is an argument of calls the `_target_` itself; None if nothing says so.
    """
    target = node.get("_target_")
    if target is None:
        return
    names, hints = arguments_of(hydra.utils.get_object(target))
    for key, value in node.items():
        if key.startswith("_"):
            check_own_key(key, value, partial, path)
            continue
        if value == MISSING:
            continue
        if key not in names:
            raise ConfigError(f"{path}.{key} is not a setting of {target}; {nearest(key, names)}")
        if isinstance(value, dict) and "_target_" in value:
            check_call(value, f"{path}.{key}", typing.get_origin(hints.get(key)) is Callable)
        elif not target.startswith(("torch.", "transformers.")):
            check_value(value, hints.get(key, Any), f"{path}.{key}")


def check_own_key(key: str, value: Any, partial: bool | None, path: str) -> None:
    """Raise ConfigError for one of Hydra's own keys in a node, unless it is `_target_` or says what is so anyway."""
    if key == "_target_" or (key == "_partial_" and partial in (None, value)):
        return
    raise ConfigError(f"{path}.{key}={value} is not a setting: leave it to conf/")


def required(target: str) -> list[str]:
    """The arguments without a default of a class or function."""
    arguments = inspect.signature(hydra.utils.get_object(target)).parameters.values()
    return [argument.name for argument in arguments if argument.default is argument.empty]


@cache
def arguments_of(target: Any) -> tuple[list[str], dict[str, Any]]:
    """The argument names of a class or function, and their type hints."""
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    return [name for name in inspect.signature(target).parameters if name != "self"], hints


adapter = cache(pydantic.TypeAdapter)


def check_value(value: Any, annotation: Any, path: str = "") -> None:
    """Raise ConfigError if a value does not have the annotated type, or is out of the annotated range."""
    try:
        adapter(annotation).validate_python(value)
    except pydantic.errors.PydanticSchemaGenerationError:
        return  # one of our own classes: only a node with a _target_ can create it
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(filter(None, [path, *map(str, problem["loc"])]))
        reason = problem.get("ctx", {}).get("error", problem["msg"])  # without "Value error, " before our own message
        raise ConfigError(f"{key}={short(problem['input'])}: {reason}") from error


def short(value: Any) -> str:
    """A value as Python writes it, or how that begins."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def check_slurm(requested_by: str) -> None:
    """Raise ConfigError where there is no Slurm. requested_by: the setting that asks for it."""
    if not shutil.which("srun"):
        raise ConfigError(f"{requested_by}: this machine has no Slurm (srun is not found); leave it out to run here")
