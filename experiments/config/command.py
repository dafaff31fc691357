"""What every command does: take what is named from outside, and end with one line where the user made a mistake."""

import atexit
import functools
import gc
import logging
from collections.abc import Callable, Sequence

from rich.console import Console

from experiments.config.errors import USER_ERRORS, print_error
from experiments.config.plugins import take

RARELY = 100_000  # new objects between two searches for garbage; at 700, Python's default, imports take a fifth longer


@functools.cache
def search_rarely() -> None:
    """Let Python search for garbage rarely, and not once more through all that is imported as the process ends, which
    would take a second."""
    gc.set_threshold(RARELY)
    atexit.register(gc.freeze)


def command(main: Callable[[Sequence[str]], int]) -> Callable[[Sequence[str]], int]:
    """A command that prints a user's error, or that it was stopped, in one line and returns the exit code for it."""

    @functools.wraps(main)
    def run(arguments: Sequence[str]) -> int:
        search_rarely()
        console = Console(markup=False, stderr=True)
        logging.getLogger("hydra").setLevel(logging.CRITICAL)  # it logs what it raises
        try:
            return main(take(arguments))
        except USER_ERRORS as error:
            print_error(console, error)
            return 1
        except KeyboardInterrupt:
            console.print("stopped; run the same command again to resume", style="yellow")
            return 130

    return run
