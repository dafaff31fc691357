"""Build the objects that a configuration describes."""

import json
from functools import cache
from typing import Any

import hydra


def build(settings: Any, **arguments: Any) -> Any:
    """Instantiate a node with a `_target_`. A ValueError of the target is raised as it is, without Hydra's wrapper."""
    try:
        return hydra.utils.instantiate(settings, **arguments)
    except hydra.errors.InstantiationException as error:
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        raise


@cache
def data_source(settings: str) -> Any:
    """The data source for these settings, given as JSON. Runs in the same process share one instance."""
    return build(json.loads(settings))
