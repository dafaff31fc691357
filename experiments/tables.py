"""`make tables`: the ledger and the means of each experiment as LaTeX (booktabs), Markdown and CSV."""

import argparse
import sys
from collections.abc import Sequence

from experiments.config.command import command


@command
def main(arguments: Sequence[str]) -> int:
    """Write the tables; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.tables", description=__doc__)
    parser.add_argument("--scale", default="laptop", help="smoke, laptop, gpu or paper")
    parser.add_argument("--outputs", default="outputs")
    options = parser.parse_args(arguments)
    # imported after the arguments: --help does not wait for torch
    from experiments.ledger.runs import gather
    from experiments.ledger.verdicts import judge_all
    from experiments.report.export.table_files import write_tables

    evidence = gather(options.scale, options.outputs)
    folder, count = write_tables(judge_all(evidence), evidence, options.outputs)
    print(f"{count} tables in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
