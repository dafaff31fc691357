"""What a configuration names, built."""

import json
from functools import cache
from typing import Any

import hydra


def build(settings: Any, **known: Any) -> Any:
    """What a node with a _target_ describes. What a class of ours says against its arguments is raised as it was."""
    try:
        return hydra.utils.instantiate(settings, **known)
    except hydra.errors.InstantiationException as error:
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        raise


@cache
def data_source(settings: str) -> Any:
    """The data source that a configuration, as JSON, names; runs that share it in one process share its contents."""
    return build(json.loads(settings))
