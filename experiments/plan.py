"""`make plan`: what every experiment of a scale will cost before it runs."""

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.config.cache import composition
from experiments.config.choices import groups, named
from experiments.config.command import command
from experiments.cost.estimate import Estimate, estimates, on_all_cores
from experiments.cost.machine import Machine, accelerator, this_machine
from experiments.cost.synthetic_data import source_of
from experiments.ledger.runs import expected
from experiments.sweeps.grid import Job
from experiments.training.run_spec import RunSpec, overrides_of_start, spec_of

WIDTH = 120  # where there is no terminal to tell
UNITS = {1e21: "Z", 1e18: "E", 1e15: "P", 1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k"}
COLUMNS = ("runs", "done", "parameters", "memory", "FLOP to go", "hours to go", "plan : fact")


class Row(NamedTuple):
    """A planned run of an experiment, and what it needs."""

    experiment: str
    planned: RunSpec
    needed: Estimate


@command
def main(arguments: Sequence[str]) -> int:
    """Print the plan; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.plan", description=__doc__)
    parser.add_argument("--scale", default="laptop", help="smoke, laptop, gpu or paper, or several with commas between")
    parser.add_argument("--only", default="", help="experiments to plan, with commas between; all if empty")
    parser.add_argument("--outputs", default="outputs")
    parser.add_argument(
        "--accelerator", default="", help="a100, b200, h100, h200, l4 or rtx4090; this machine if empty"
    )
    options = parser.parse_args(arguments)
    console = Console(markup=False, width=None if sys.stdout.isatty() else WIDTH)
    experiments = named(options.only, groups()["experiment"], "only") or groups()["experiment"]
    scales = named(options.scale, groups()["scale"], "scale")
    other = accelerator(options.accelerator) if options.accelerator else None
    asked = [(name, scale, options.outputs) for scale in scales for name in experiments]
    wanted = {scale: list[Job]() for scale in scales}
    for (_, scale, _), jobs in zip(asked, on_all_cores(foreseen, asked)):
        wanted[scale] += jobs
    machine = other or this_machine()  # measured while nothing else is done
    for scale, jobs in wanted.items():
        console.print(table(rows_of(jobs, options.outputs), machine, scale))
    console.print(machine.source, soft_wrap=True, highlight=False)
    return 0


def foreseen(asked: tuple[str, str, str]) -> list[Job]:
    """The runs of an experiment at a scale, composed into the cache, which is most of the time of a first plan."""
    name, scale, outputs = asked
    jobs = expected([name], scale, outputs)
    for job in jobs:
        composition(job.levels, job.seed, job.outputs)
    return jobs


def rows_of(jobs: list[Job], outputs: str) -> list[Row]:
    """These runs, and those that they start from, each once."""
    planned = [(job.experiment, job.spec(source_of)) for job in jobs]
    starts = {tuple(overrides_of_start(one)): (name, one) for name, one in planned if one.config["start"]}
    for own, (name, one) in starts.items():
        planned.append((name, spec_of(composition(own, one.config["seed"], outputs), own, source_of)))
    needed = estimates([(one.config, one.record.identity["precision"]) for _, one in planned])
    return [Row(name, one, own) for (name, one), own in zip(planned, needed)]


def table(rows: list[Row], machine: Machine, scale: str) -> Table:
    """A line for every experiment, and their sum. Parameters and memory are those of the largest run."""
    found, beyond = Table(title=f"plan, scale={scale}", box=SIMPLE_HEAD, pad_edge=False), list[str]()
    found.add_column("experiment", no_wrap=True)
    for column in COLUMNS:
        found.add_column(column, justify="right")
    experiments = list(dict.fromkeys(row.experiment for row in rows))
    for experiment in experiments:
        own = [row for row in rows if row.experiment == experiment]
        memory = max(row.needed.memory for row in own)
        fits = memory <= machine.memory
        if not fits:
            beyond.append(f"* {experiment} does not fit: {short(memory, 'B')} of {short(machine.memory, 'B')}")
        parameters = short(max(row.needed.parameters for row in own))
        found.add_row(experiment, *counts(own, machine, parameters, short(memory, "B") + " *" * (not fits)))
    found.add_section()
    found.add_row("sum", *counts(rows, machine, "", ""))
    found.caption, found.caption_justify = "\n".join(beyond), "left"
    return found


def counts(rows: list[Row], machine: Machine, parameters: str, memory: str) -> list[str]:
    """The columns of these runs after their name. Of finished ones: what they were planned to take of what they did."""
    done = [row for row in rows if row.planned.record.finished]
    to_go = [row.needed for row in rows if not row.planned.record.finished]
    hours = sum(map(machine.seconds, to_go)) / machine.at_once / 3600
    took = sum(row.planned.record.summary["seconds"] for row in done if row.needed.operations)
    ratio = f"{sum(machine.seconds(row.needed) for row in done) / took:.2f}" if took else ""
    flops = short(sum(one.flops for one in to_go))
    return [str(len(rows)), str(len(done)), parameters, memory, flops, f"{hours:,.2f}", ratio]


def short(number: float, unit: str = "") -> str:
    """A number with three digits and a prefix: 1.24 G."""
    for size, prefix in UNITS.items():
        if number >= size:
            return f"{number / size:.3g} {prefix}{unit}"
    return f"{number:.3g} {unit}".strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
