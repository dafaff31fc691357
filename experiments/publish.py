"""`make publish`: write a folder that can be put on a web server as it is."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.config.command import command
from experiments.config.errors import ConfigError


@command
def main(arguments: Sequence[str]) -> int:
    """Publish; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.publish", description=__doc__)
    parser.add_argument("--scale", default="laptop", help="smoke, laptop, gpu or paper")
    parser.add_argument("--outputs", default="outputs")
    parser.add_argument("--to", default="published", help="a folder that is not there yet")
    options = parser.parse_args(arguments)
    # imported after the arguments: --help does not wait for torch
    from experiments.report.export.release import write_release

    folder = Path(options.to)
    if folder.exists():
        raise ConfigError(f"{folder} is there already: name another folder, --to …, or remove it")
    count = write_release(options.scale, options.outputs, folder)
    print(f"{count} records published in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
