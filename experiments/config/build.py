"""Build the objects that a configuration describes."""

import inspect
import json
from functools import cache
from typing import Any, Protocol

import hydra

from experiments.config.checks import arguments_of
from experiments.config.errors import ConfigError

FITTING = "choose a model, a task and data that fit together: model=…, task=… or data=…"


def build(settings: Any, **arguments: Any) -> Any:
    """Instantiate a node with a `_target_`. A ValueError of the target is raised as it is, without Hydra's wrapper.

    Raises ConfigError if the target does not take these arguments.
    """
    check_arguments(settings, arguments)
    try:
        return hydra.utils.instantiate(settings, **arguments)
    except hydra.errors.InstantiationException as error:
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        raise


def check_arguments(settings: Any, arguments: dict[str, Any]) -> None:
    """Raise ConfigError if the target of a node lacks an argument, does not know one, or is given data of another kind:
    a model that is not for the task, or data that is not."""
    target = hydra.utils.get_object(settings["_target_"])
    signature = inspect.signature(target)
    own = {str(key): None for key in settings if not str(key).startswith("_")}
    try:
        (signature.bind_partial if settings.get("_partial_") else signature.bind)(**own | arguments)
    except TypeError as error:
        raise ConfigError(f"{target.__name__}: {error}; {FITTING}") from error
    _, hints = arguments_of(target)
    for name, value in arguments.items():
        kind = hints.get(name)
        members = [member for member in dir(kind) if not member.startswith("_")] if is_protocol(kind) else []
        for member in members:
            if not hasattr(value, member):
                raise ConfigError(
                    f"{target.__name__} needs {member}, which {type(value).__name__} does not have; {FITTING}"
                )


def is_protocol(kind: Any) -> bool:
    """Whether a type hint is a class that says what an argument must have, and not what it is."""
    return Protocol in getattr(kind, "__bases__", ())


@cache
def data_source(settings: str) -> Any:
    """The data source for these settings, given as JSON. Runs in the same process share one instance."""
    return build(json.loads(settings))
