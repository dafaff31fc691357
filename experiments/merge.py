"""`make merge FROM="a/outputs b/outputs"`: bring the records of several outputs folders together.

A run that is there already is compared and kept once. What is left out is listed with its reason. If two folders hold
different results of one run, nothing is copied.
"""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from experiments.config.command import command


@command
def main(arguments: Sequence[str]) -> int:
    """Merge; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.merge", description=__doc__)
    parser.add_argument("folders", nargs="+", help="outputs folders, of other machines for instance")
    parser.add_argument("--outputs", default="outputs", help="the folder that the records are copied to")
    options = parser.parse_args(arguments)
    # imported after the arguments: --help does not wait for torch
    from experiments.ledger.merging import merge, planned

    console = Console(markup=False, highlight=False)
    plan = planned(options.folders, options.outputs)
    merge(plan, options.outputs)
    console.print(f"{len(plan.copied)} records copied, {plan.known} there already", soft_wrap=True)
    for reason, count in plan.left_out.items():
        console.print(f"left out: {count} of {reason}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
