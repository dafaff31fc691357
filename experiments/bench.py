"""`make bench`: measure speed and memory on this machine, next to other implementations."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments.config.command import command

WIDE = 200  # columns of a console that is no terminal


@command
def main(arguments: Sequence[str]) -> int:
    """Run all benchmarks and print their tables; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench", description=__doc__)
    parser.add_argument("--json", type=Path, help="a file for the figures; the chart of memory lies beside it")
    options = parser.parse_args(arguments)
    from experiments.benchmarks import memory, peers, sweep
    from experiments.benchmarks.models import REPEATS, activation_table, attention_table, decoding_table, position_table
    from experiments.benchmarks.records import records_table
    from experiments.benchmarks.roofline import roofline_table
    from experiments.benchmarks.start import start_table
    from experiments.benchmarks.tracking import tracking_table
    from experiments.recording import environment
    from experiments.report.export.chart_files import chart_files
    from tasks.data.source import write_atomically

    threads = environment.use_threads(None)
    precision = environment.resolve_precision("auto")
    console = Console(markup=False, width=None if sys.stdout.isatty() else WIDE)
    machine = {"processor": environment.processor(), "threads": threads, "precision": precision}
    console.print(", ".join(map(str, machine.values())))
    found = []
    beside = peers.tables(console, precision, REPEATS)
    tables = (
        lambda: attention_table(console, precision),
        lambda: activation_table(precision),
        lambda: position_table(precision),
        lambda: decoding_table(precision),
        start_table,
        tracking_table,
        sweep.sweep_table,
        lambda: records_table(console),
        lambda: roofline_table(precision),
        *beside,
        *([lambda: memory.memory_table(console, precision)] if beside else []),
    )
    for measure in tables:
        table = measure()
        console.print(table)
        columns = [[str(cell) for cell in column.cells] for column in table.columns]
        headings = [str(column.header) for column in table.columns]
        rows = [dict(zip(headings, row)) for row in zip(*columns)]
        found.append({"title": str(table.title), "rows": rows})
        if options.json:
            write_atomically(options.json, (json.dumps(machine | {"tables": found}, indent=2) + "\n").encode())
            if headings == list(memory.COLUMNS):
                chart = chart_files(memory.memory_chart(rows).to_dict())["svg"]
                write_atomically(options.json.with_suffix(".svg"), chart)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
