"""`make verify RUN=<run id>`: repeat a finished run and compare the result with its record.

On the same machine with the same libraries, the result must be identical byte for byte. Elsewhere rounding differs:
each final metric must be within TOLERANCE of the recorded one.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence

from rich.console import Console

from experiments.config.command import command


@command
def main(arguments: Sequence[str]) -> int:
    """Repeat a run and print the differences; returns the exit code, 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python -m experiments.verify", description=__doc__)
    parser.add_argument("run", help="the id of a finished run")
    parser.add_argument("--outputs", default="outputs")
    options = parser.parse_args(arguments)
    # imported after the arguments: --help does not wait for torch
    from experiments.evaluation.repeat import MACHINE, TOLERANCE, deviations, differences, finished, repeat

    console = Console(stderr=True, markup=False)
    record = finished(options.run, options.outputs)
    with tempfile.TemporaryDirectory() as folder:
        again = repeat(record, folder, console)
        same = all(record.environment[name] == again.environment[name] for name in MACHINE)
        found = list(differences(record, again) if same else deviations(record, again))
    for difference in found:
        console.print(difference, soft_wrap=True, highlight=False)
    way = "byte for byte" if same else f"within {TOLERANCE:.0%}, on another machine or with other libraries"
    console.print(f"{record.folder}: {'not repeated' if found else 'repeated'} {way}", soft_wrap=True, highlight=False)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
