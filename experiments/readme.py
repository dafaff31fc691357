"""`make readme`: write the ledger's tables and picture into README.md and docs/, from the records."""

import argparse
import sys
from collections.abc import Sequence

from experiments.config.command import command


@command
def main(arguments: Sequence[str]) -> int:
    """Write the tables and the picture; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.readme", description=__doc__)
    parser.add_argument("--scale", default="laptop", help="smoke, laptop, gpu or paper")
    parser.add_argument("--outputs", default="outputs")
    options = parser.parse_args(arguments)
    # imported after the arguments: --help does not wait for torch
    from experiments.ledger.runs import gather
    from experiments.ledger.verdicts import judge_all
    from experiments.report.export.readme_table import write_readme

    evidence = gather(options.scale, options.outputs)
    write_readme(judge_all(evidence), evidence)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
