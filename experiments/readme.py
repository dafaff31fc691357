"""`make readme`: write the ledger's table and picture into README.md."""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from experiments.execution import USER_ERRORS
from experiments.ledger import judge_all
from experiments.report.export.readme_table import write_readme
from experiments.reproduce import gather
from experiments.sweep import fail


def main(arguments: Sequence[str]) -> int:
    """Write the table and the picture; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.readme", description=__doc__)
    parser.add_argument("--scale", default="laptop", help="smoke, laptop, gpu or paper")
    parser.add_argument("--outputs", default="outputs")
    options = parser.parse_args(arguments)
    try:
        write_readme(judge_all(gather(options.scale, options.outputs)))
    except USER_ERRORS as error:
        fail(Console(stderr=True), error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
