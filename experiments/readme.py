"""`make readme`: write the ledger's tables and picture into README.md and docs/, from the records."""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from experiments.config.errors import USER_ERRORS, print_error
from experiments.ledger.runs import gather
from experiments.ledger.verdicts import judge_all
from experiments.report.export.readme_table import write_readme


def main(arguments: Sequence[str]) -> int:
    """Write the tables and the picture; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.readme", description=__doc__)
    parser.add_argument("--scale", default="laptop", help="smoke, laptop, gpu or paper")
    parser.add_argument("--outputs", default="outputs")
    options = parser.parse_args(arguments)
    try:
        evidence = gather(options.scale, options.outputs)
        write_readme(judge_all(evidence), evidence)
    except USER_ERRORS as error:
        print_error(Console(stderr=True), error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
