"""`make figures`: every chart of the page as SVG, PNG and PDF."""

import argparse
import sys
from collections.abc import Sequence

from experiments.config.command import command


@command
def main(arguments: Sequence[str]) -> int:
    """Write the charts; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.figures", description=__doc__)
    parser.add_argument("--scale", default="laptop", help="smoke, laptop, gpu or paper")
    parser.add_argument("--outputs", default="outputs")
    options = parser.parse_args(arguments)
    # imported after the arguments: --help does not wait for torch
    from experiments.ledger.runs import gather
    from experiments.report.export.chart_files import write_charts

    folder, count = write_charts(gather(options.scale, options.outputs), options.scale, options.outputs)
    print(f"{count} charts in {folder}" if count else f"no finished runs in {options.outputs}: run make reproduce")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
