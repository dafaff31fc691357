"""What a configuration may have called, be it composed here or read from a folder that someone else has made."""

import inspect
import re
from functools import cache
from typing import Any

import hydra

from experiments.config import plugins
from experiments.config.choices import CONF
from experiments.config.errors import ConfigError, first_line

PACKAGES = ("models", "tasks", "experiments", "torch", "transformers")  # of models and optimizers that are allowed


@cache
def named() -> frozenset[str]:
    """The targets that the files in conf/ name."""
    texts = (file.read_text(encoding="utf-8") for file in CONF.rglob("*.yaml"))
    return frozenset(target for text in texts for target in re.findall(r"^\s*_target_:\s*([\w.]+)", text, re.M))


def check_targets(node: Any, path: str = "") -> None:
    """Raise ConfigError for a `_target_`, anywhere in nested settings, that may not be called or cannot be imported.

    Interpolations are refused, too: one such as `${oc.create:…}` makes settings that nobody has seen.
    """
    if isinstance(node, str) and "${" in node:
        raise ConfigError(f"{path}={node}: a plain configuration has values and no interpolations")
    if isinstance(node, dict):
        if "_target_" in node:
            check_target(node["_target_"], f"{path}._target_".lstrip("."))
        for key, value in node.items():
            check_targets(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            check_targets(value, f"{path}[{index}]")


def check_target(target: Any, path: str) -> None:
    """Raise ConfigError unless a target is named in conf/, is a class of models or optimizers of PACKAGES, or is a
    class that one of the plugins defines."""
    refused = ConfigError(
        f"{path}={target} is not allowed: it must be named in conf/, be a model or an optimizer of one of "
        f"{', '.join(PACKAGES)}, or be a class of a package that plugins=[…] names"
    )
    if not isinstance(target, str):
        raise refused
    known, package = target in named(), target.split(".")[0]
    outside = package in plugins.packages()
    if not (known or outside or package in PACKAGES):
        raise refused
    try:
        found = hydra.utils.get_object(target)
    except Exception as error:
        raise ConfigError(f"{path}={target} cannot be imported: {first_line(error.__cause__ or error)}") from error
    own = inspect.isclass(found) and (found.__module__.split(".")[0] == package if outside else is_part(found))
    if not (known or own):
        raise refused


def is_part(found: type) -> bool:
    """Whether a class is one of models or optimizers."""
    from torch import nn, optim  # takes a second, which what conf/ names itself need not wait for

    return issubclass(found, nn.Module | optim.Optimizer)
