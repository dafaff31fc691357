"""`python -m experiments.compare positions position=rope,alibi`: levels of an experiment side by side.

factor=level,level compares these levels, factor all of its levels, and factor=level keeps the runs of that level. The
best comes first; differences to it are paired by seed, with intervals by the ledger's statistics.
"""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from experiments.config.choices import groups, named, nearest
from experiments.config.command import command
from experiments.config.errors import ConfigError
from experiments.ledger.levels import Result, results_of
from experiments.report.export.text_tables import FORMATS, written
from experiments.report.level_table import for_terminal, level_table


@command
def main(arguments: Sequence[str]) -> int:
    """Print the comparison; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.compare", description=__doc__)
    parser.add_argument("experiment")
    parser.add_argument("factors", nargs="*", help="factor=level,level or factor; what varies if there is none")
    parser.add_argument("--metric", default="", help="the experiment's main metric if empty")
    parser.add_argument("--scale", default="laptop", help="smoke, laptop, gpu or paper")
    parser.add_argument("--outputs", default="outputs")
    parser.add_argument("--format", default="", choices=["", *FORMATS], help="a table for a terminal if empty")
    options = parser.parse_args(arguments)
    named(options.scale, groups()["scale"], "--scale")
    results, earlier = results_of(options.experiment, options.scale, options.outputs)
    results, names = selected(results, options.factors)
    if options.metric and not any(options.metric in each.record.summary["metrics"] for each in results):
        known = list(dict.fromkeys(name for each in results for name in each.record.summary["metrics"]))
        raise ConfigError(f"--metric {options.metric}: no run has it; {nearest(options.metric, known)}")
    table = level_table(results, names, options.metric)
    if options.format:
        sys.stdout.write(written(table.columns, table.rows, options.format, table.bold))
    else:
        Console(markup=False, highlight=False).print(for_terminal(table))
    if earlier:
        note = f"{earlier} runs are left out: later ones have the same levels and seed"
        Console(markup=False, stderr=True).print(note, style="yellow", soft_wrap=True)
    return 0


def selected(results: list[Result], factors: Sequence[str]) -> tuple[list[Result], list[str]]:
    """The runs with the levels that are asked for, and the factors that are compared. Raises ConfigError."""
    names = list[str]()
    known = list(dict.fromkeys(name for result in results for name in result.factors))
    for factor in factors:
        name, equals, listed = factor.partition("=")
        if name not in known:
            raise ConfigError(f"{factor}: no run chooses {name}; {nearest(name, known)}")
        levels = list(dict.fromkeys(result.factors[name] for result in results if name in result.factors))
        wanted = [level.strip() for level in listed.strip("[]").split(",")] if equals else levels
        for level in wanted:
            if level not in levels:
                raise ConfigError(f"{factor}: no run has {name}={level}; {nearest(level, levels)}")
        results = [result for result in results if result.factors.get(name) in wanted]
        names += [name] if len(wanted) > 1 else []
    if not results:
        raise ConfigError(f"no run has all of {' '.join(factors)}")
    return results, names


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
