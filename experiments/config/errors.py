"""Errors caused by user input or by the machine, printed in one line."""

from collections.abc import Iterator

from hydra.errors import InstantiationException
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console


class ConfigError(ValueError):
    """An invalid configuration. The message is one line: what is wrong and how to fix it."""


class RecordError(RuntimeError):
    """A record that cannot be used. The message names it and says what to do."""


class HeldError(RecordError):
    """Another process holds the lock of this run."""


# Printed in one line; the traceback is in the run's status.json.
USER_ERRORS = (ValueError, RecordError, OSError, MemoryError)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, with OmegaConf's key if there is one; its type if the message is empty.

    A ConfigError that caused the error is returned whole.
    """
    error = cause_of(error)
    for behind in causes(error):
        if isinstance(behind, ConfigError):
            return str(behind)
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    line = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    key = getattr(cause, "full_key", None)
    return f"{key}: {line}" if key and key not in line else line


def causes(error: BaseException) -> Iterator[BaseException]:
    """What an error was caused by or happened while handling, each once: two errors may name each other."""
    seen, behind = {id(error)}, error.__cause__ or error.__context__
    while behind is not None and id(behind) not in seen:
        yield behind
        seen.add(id(behind))
        behind = behind.__cause__ or behind.__context__


def cause_of(error: BaseException) -> BaseException:
    """What a class or function raised when Hydra called it; any other error is returned as it is."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def print_error(console: Console, error: BaseException) -> None:
    """Print an error in one line."""
    message = " ".join(str(error).split()) or type(error).__name__
    console.print(f"error: {message}", style="red", markup=False, soft_wrap=True)
