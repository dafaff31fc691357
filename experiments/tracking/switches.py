"""W&B's own environment variables: whether they are valid, and what they say about runs that are already recorded."""

import os
from typing import Any

import pydantic
import wandb

from experiments.config.errors import ConfigError, first_line
from experiments.config.schema import Mode
from experiments.recording.record import Record


def check_switches() -> None:
    """Raise ConfigError for a variable whose value W&B or this program cannot use.

    W&B itself would fall back to its default server if WANDB_BASE_URL is malformed.
    """
    modes = list(Mode.__members__)
    given = {name: value for name, value in sorted(os.environ.items()) if name.startswith("WANDB_") and value}
    if given.get("WANDB_MODE", modes[0]) not in modes:
        raise ConfigError(f"WANDB_MODE={given['WANDB_MODE']}: choose one of {', '.join(modes)}")
    for name, value in given.items():
        check(name, value, name)


def check_tracking(tracking: dict[str, Any]) -> None:
    """Raise ConfigError for settings of `tracking` that W&B would refuse."""
    check("WANDB_PROJECT", tracking["project"], "tracking.project")
    for tag in tracking.get("tags", []):
        check("WANDB_TAGS", tag, "tracking.tags")


def check(variable: str, value: str, name: str) -> None:
    """Raise ConfigError if W&B refuses a value of one of its variables. name: what the user calls it."""
    try:
        wandb.Settings().update_from_env_vars({variable: value})
    except (pydantic.ValidationError, wandb.errors.UsageError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, pydantic.ValidationError) else first_line(error)
        shown = name if "KEY" in variable else f"{name}={value}"  # keys reach no log
        raise ConfigError(f"{shown}: {reason}") from None


def tracking_now(record: Record) -> dict[str, Any]:
    """A record's settings of `tracking`, with WANDB_MODE, WANDB_PROJECT and WANDB_ENTITY as they are now, unless the
    run's own command set them."""
    given = {override.lstrip("+").split("=")[0] for override in record.environment.get("overrides", [])}
    now = {name: os.environ.get(f"WANDB_{name.upper()}") for name in ("mode", "project", "entity")}
    changed = {name: value for name, value in now.items() if value and f"tracking.{name}" not in given}
    return record.config["tracking"] | changed
