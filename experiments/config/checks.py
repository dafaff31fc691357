"""Whether a composed configuration fits what it names."""

import inspect
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

import hydra
import pydantic
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config.choices import nearest
from experiments.config.errors import ConfigError, first_line
from experiments.config.schema import Scale

PACKAGES = ("models", "tasks", "experiments", "torch", "transformers")  # what a _target_ may name


def flatten(node: Any, prefix: str = "") -> Iterator[str]:
    """Every key of a configuration, with dots."""
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
        for key in node:
            path = f"{prefix}{key!s}"
            yield path
            if not OmegaConf.is_interpolation(node, str(key)) and not OmegaConf.is_missing(node, key):
                yield from flatten(node[key], f"{path}.")


def is_setting(key: str) -> bool:
    """Whether a key belongs to the plain configuration, and is not what settings read of the scale."""
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
