"""`make plan`: what every experiment of a scale will cost before it runs; `--check` puts finished runs beside it."""

import argparse
import statistics
import sys
from collections.abc import Sequence
from typing import NamedTuple

import psutil
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.config.cache import composition
from experiments.config.choices import groups, nearest
from experiments.config.errors import USER_ERRORS, ConfigError, print_error
from experiments.cost.estimate import Estimate, estimates
from experiments.cost.machine import Machine, accelerator, this_machine
from experiments.cost.synthetic_data import source_of
from experiments.ledger.claims import claims, compared_factors
from experiments.sweeps.grid import Job, jobs_of_all
from experiments.training.run_spec import RunSpec, overrides_of_start, spec_of

WIDTH = 120  # where there is no terminal to tell
UNITS = {1e21: "Z", 1e18: "E", 1e15: "P", 1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k"}
SIZES = ("weights", "optimizer", "activations", "state")


class Row(NamedTuple):
    """A planned run of an experiment, and what it needs."""

    experiment: str
    planned: RunSpec
    needed: Estimate


def main(arguments: Sequence[str]) -> int:
    """Print the plan; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.plan", description=__doc__)
    parser.add_argument("--scale", default="laptop", help="smoke, laptop, gpu or paper, or several with commas between")
    parser.add_argument("--only", default="", help="experiments to plan, with commas between; all if empty")
    parser.add_argument("--outputs", default="outputs")
    parser.add_argument(
        "--accelerator", default="", help="a100, b200, h100, h200, l4 or rtx4090; this machine if empty"
    )
    parser.add_argument("--check", action="store_true", help="put the plan of finished runs beside what they took")
    options = parser.parse_args(arguments)
    console, errors = Console(width=None if sys.stdout.isatty() else WIDTH), Console(stderr=True)
    try:
        experiments = known(options.only, "experiment", "only") or groups()["experiment"]
        scales = known(options.scale, "scale", "scale")
        named = accelerator(options.accelerator) if options.accelerator else None
        wanted = jobs_of_all(experiments, scales, options.outputs, 0, compared_factors(claims()))
        machine = named or this_machine()  # measured while nothing else is done
        for scale, rows in rows_of(wanted, options.outputs).items():
            console.print(checked(rows, machine, scale) if options.check else table(rows, machine, scale))
    except USER_ERRORS as error:
        print_error(errors, error)
        return 1
    except KeyboardInterrupt:
        errors.print("stopped", style="yellow")
        return 130
    console.print(machine.source, soft_wrap=True, highlight=False)
    return 0


def known(names: str, group: str, option: str) -> list[str]:
    """The choices of a group that are named, with commas between. Raises ConfigError for one that there is not."""
    found = [name.strip() for name in names.split(",") if name.strip()]
    for name in found:
        if name not in groups()[group]:
            raise ConfigError(f"{option}={name}: no such {group}; {nearest(name, groups()[group])}")
    return found


def rows_of(wanted: dict[str, list[Job]], outputs: str) -> dict[str, list[Row]]:
    """These runs by scale, and those that they start from, each once."""
    planned = [(scale, name, one) for scale, jobs in wanted.items() for name, one in planned_of(jobs, outputs)]
    needed = estimates([(one.config, one.record.identity["precision"]) for _, _, one in planned])
    rows: dict[str, list[Row]] = {scale: [] for scale in wanted}
    for (scale, name, one), own in zip(planned, needed):
        rows[scale].append(Row(name, one, own))
    return rows


def planned_of(jobs: list[Job], outputs: str) -> list[tuple[str, RunSpec]]:
    """The experiment and the plan of each run, and of those that they start from."""
    planned = [(job.experiment, job.spec(source_of)) for job in jobs]
    starts = {
        tuple(overrides_of_start(one)): (name, one.config["seed"]) for name, one in planned if one.config["start"]
    }
    return planned + [
        (name, spec_of(composition(own, seed, outputs), own, source_of)) for own, (name, seed) in starts.items()
    ]


def table(rows: list[Row], machine: Machine, scale: str) -> Table:
    """A line for every experiment, and their sum. Sizes are those of the largest run."""
    found = empty_table(
        f"plan, scale={scale}: sizes of the largest run, the rest of all runs to go",
        *("runs", "done", "params", "trained on", "FLOP", *SIZES, "hours"),
    )
    sums, beyond = [0.0] * 4, list[str]()
    for experiment, own in by_experiment(rows).items():
        needed = [row.needed for row in own]
        to_go = [row.needed for row in own if not row.planned.record.finished]
        hours = sum(map(machine.seconds, to_go)) / machine.at_once / 3600
        counts = [len(own), len(own) - len(to_go), sum(one.flops for one in to_go), hours]
        sums = [one + other for one, other in zip(sums, counts)]
        largest = max(one.memory for one in needed)
        if largest > machine.memory:
            beyond.append(f"* {experiment} does not fit: {short(largest, 'B')} of {short(machine.memory, 'B')}")
        unit = "img" if "ImageClassification" in own[0].planned.config["task"]["_target_"] else "tok"
        found.add_row(
            experiment,
            *map(str, counts[:2]),
            short(max(one.parameters for one in needed)),
            f"{short(sum(one.seen for one in to_go))} {unit}",
            short(counts[2]),
            *(short(max(getattr(one, name) for one in needed), "B") for name in SIZES),
            hours_of(hours) + " *" * (largest > machine.memory)
            if any(one.operations for one in needed)
            else "measured",
        )
    found.add_section()
    found.add_row("sum", *(f"{count:.0f}" for count in sums[:2]), "", "", short(sums[2]), *[""] * 4, hours_of(sums[3]))
    found.caption, found.caption_justify = "\n".join(beyond), "left"
    return found


def checked(rows: list[Row], machine: Machine, scale: str) -> Table:
    """A line for every experiment with finished runs: what was planned and what it was, of all of them together.

    Of memory: what the run was planned to add to what its process held before, or to what this one holds once it has
    trained, as a run's does whose process is new.
    """
    names = ("runs", "planned s", "real s", "ratio", "of single runs", "planned memory", "real memory", "ratio")
    found, resident = empty_table(f"plan and fact, scale={scale}", *names), psutil.Process().memory_info().rss
    for experiment, own in by_experiment(rows).items():
        done = [(row.needed, row.planned.record) for row in own if row.planned.record.finished]
        done = [(needed, record) for needed, record in done if needed.operations]
        if not done:
            continue
        seconds = [(machine.seconds(needed), record.summary["seconds"]) for needed, record in done]
        ratios = sorted(one / other for one, other in seconds if other)
        memory = [
            (max(record.environment["resident_bytes"], resident) + needed.memory, record.summary["peak_bytes"])
            for needed, record in done
        ]
        planned, real = (sum(values) for values in zip(*seconds))
        expected, peak = (statistics.fmean(values) for values in zip(*memory))
        found.add_row(
            *(experiment, str(len(done)), f"{planned:,.0f}", f"{real:,.0f}", f"{planned / real:.2f}"),
            f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
            *(short(expected, "B"), short(peak, "B"), f"{expected / peak:.2f}"),
        )
    return found


def by_experiment(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows of each experiment."""
    return {
        name: [row for row in rows if row.experiment == name] for name in dict.fromkeys(row.experiment for row in rows)
    }


def empty_table(title: str, *columns: str) -> Table:
    """A table of experiments, whose names are never cut."""
    found = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    found.add_column("experiment", no_wrap=True)
    for column in columns:
        found.add_column(column, justify="right")
    return found


def hours_of(number: float) -> str:
    """Hours, to a hundredth where they are few."""
    return f"{number:.2f}" if number < 100 else short(number)


def short(number: float, unit: str = "") -> str:
    """A number with three digits and a prefix: 1.24 G."""
    for size, prefix in UNITS.items():
        if number >= size:
            return f"{number / size:.3g} {prefix}{unit}"
    return f"{number:.3g} {unit}".strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
