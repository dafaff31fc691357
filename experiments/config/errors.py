"""What goes wrong through a user's input or a machine's limits, told in one line."""

from omegaconf.errors import OmegaConfBaseException
from rich.console import Console


class ConfigError(ValueError):
    """A configuration that cannot be run; the message is one line with what was wrong and what would be right."""


class RecordError(RuntimeError):
    """A record that cannot be used; the message says which and what to do."""


class HeldError(RecordError):
    """A run that another process is working on."""


USER_ERRORS = (ValueError, RecordError, OSError)  # printed in one line; a run's status.json has the traceback


def first_line(error: BaseException) -> str:
    """An error as one line: that of a ConfigError behind it, or its own with the key that OmegaConf names.

    An error without a message gives its type's name.
    """
    behind = error.__cause__ or error.__context__
    while behind is not None and not isinstance(behind, ConfigError):
        behind = behind.__cause__ or behind.__context__
    if behind is not None:
        return str(behind)
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    line = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    key = getattr(cause, "full_key", None)
    return f"{key}: {line}" if key and key not in line else line


def print_error(console: Console, error: BaseException) -> None:
    """Print an error in one line."""
    console.print(f"error: {' '.join(str(error).split())}", style="red", markup=False, soft_wrap=True)
