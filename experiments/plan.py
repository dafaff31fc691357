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
from experiments.cost.loads import loads_of
from experiments.cost.machine import Machine, accelerator, this_machine
from experiments.cost.stand_in import source_of
from experiments.cost.workload import Workload
from experiments.ledger.claims import claims, compared_factors
from experiments.sweeps.grid import Job, jobs_of_all
from experiments.training.run_spec import RunSpec, overrides_of_start, spec_of

WIDTH = 120  # where there is no terminal to tell
UNITS = {1e21: "Z", 1e18: "E", 1e15: "P", 1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k"}


class Row(NamedTuple):
    """A run that is planned, what it asks for, and whether it is finished."""

    experiment: str
    planned: RunSpec
    load: Workload

    @property
    def finished(self) -> bool:
        return self.planned.record.finished

    @property
    def resident(self) -> int:
        """Bytes that the process of a finished run took up before it."""
        return self.planned.record.environment["resident_bytes"]


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
        scales = options.scale.split(",")
        experiments = [chosen(options.only, scale) for scale in scales].pop()
        named = accelerator(options.accelerator) if options.accelerator else None
        wanted = jobs_of_all(experiments, scales, options.outputs, 0, compared_factors(claims()))
        machine = named or this_machine()  # measured while nothing else is done
        found = rows_of(wanted, options.outputs)
        for scale, rows in found.items():
            console.print(checked(rows, machine, scale) if options.check else table(rows, machine, scale))
    except USER_ERRORS as error:
        print_error(errors, error)
        return 1
    except KeyboardInterrupt:
        errors.print("stopped", style="yellow")
        return 130
    console.print(machine.source, soft_wrap=True, highlight=False)
    return 0


def chosen(only: str, scale: str) -> list[str]:
    """The experiments named by `only`, all if it is empty. Raises ConfigError for a name or scale that is not known."""
    if scale not in groups()["scale"]:
        raise ConfigError(f"scale={scale}: no such choice; {nearest(scale, groups()['scale'])}")
    known = groups()["experiment"]
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ConfigError(f"only={name}: no such experiment; {nearest(name, known)}")
    return names or known


def rows_of(wanted: dict[str, list[Job]], outputs: str) -> dict[str, list[Row]]:
    """These runs by scale, and those that they start from, each once."""
    found = [(scale, name, one) for scale, jobs in wanted.items() for name, one in planned_of(jobs, outputs)]
    rows: dict[str, list[Row]] = {scale: [] for scale in wanted}
    for (scale, name, one), load in zip(found, loads_of([one for _, _, one in found])):
        rows[scale].append(Row(name, one, load))
    return rows


def planned_of(wanted: list[Job], outputs: str) -> list[tuple[str, RunSpec]]:
    """The experiment and the plan of each run, and of those that they start from."""
    planned = [(job.experiment, job.spec(source_of)) for job in wanted]
    starts = {
        tuple(overrides_of_start(one)): (name, one.config["seed"]) for name, one in planned if one.config["start"]
    }
    return planned + [
        (name, spec_of(composition(own, seed, outputs), own, source_of)) for own, (name, seed) in starts.items()
    ]


def table(rows: list[Row], machine: Machine, scale: str) -> Table:
    """A line for every experiment, and their sum. Sizes are those of the largest run."""
    names = ("runs", "done", "params", "trained on", "FLOP", "weights", "optimizer", "activations", "state", "hours")
    found = empty_table(f"plan, scale={scale}: sizes of the largest run, the rest of all runs to go", *names)
    total, beyond = [0, 0, 0.0, 0.0], list[str]()
    for experiment in dict.fromkeys(row.experiment for row in rows):
        own = [row for row in rows if row.experiment == experiment]
        to_go = [row for row in own if not row.finished]
        loads = [row.load for row in own]
        flops = sum(row.load.work.flops for row in to_go)
        hours = sum(machine.seconds(row.load) for row in to_go) / machine.at_once / 3600
        unit = "img" if "ImageClassification" in own[0].planned.config["task"]["_target_"] else "tok"
        sizes = [
            short(max(getattr(load, name) for load in loads), "B")
            for name in ("weights", "optimizer", "activations", "state")
        ]
        largest = max(load.memory for load in loads)
        fits = largest <= machine.memory
        if not fits:
            beyond.append(f"* {experiment} does not fit: {short(largest, 'B')} of {short(machine.memory, 'B')}")
        found.add_row(
            experiment,
            str(len(own)),
            str(len(own) - len(to_go)),
            short(max(load.parameters for load in loads)),
            f"{short(sum(row.load.seen for row in to_go))} {unit}",
            short(flops),
            *sizes,
            f"{hours_of(hours)}{'' if fits else ' *'}" if any(load.work.operations for load in loads) else "measured",
        )
        total = [a + b for a, b in zip(total, (len(own), len(own) - len(to_go), flops, hours))]
    found.add_section()
    runs, finished, flops, hours = total
    found.add_row("sum", str(runs), str(finished), "", "", short(flops), "", "", "", "", hours_of(hours))
    found.caption, found.caption_justify = "\n".join(beyond), "left"
    return found


def checked(rows: list[Row], machine: Machine, scale: str) -> Table:
    """A line for every experiment with finished runs: what was planned and what it was, of all of them together.

    Of memory: what the run was planned to add to what its process held before, or to what this one holds once it has
    trained, as a run's does whose process is new.
    """
    trained = psutil.Process().memory_info().rss
    names = ("runs", "planned s", "real s", "ratio", "of single runs", "planned memory", "real memory", "ratio")
    found = empty_table(f"plan and fact, scale={scale}", *names)
    for experiment in dict.fromkeys(row.experiment for row in rows):
        done = [row for row in rows if row.experiment == experiment and row.finished and row.load.work.operations]
        if not done:
            continue
        pairs = [(machine.seconds(row.load), row.planned.record.summary["seconds"]) for row in done]
        planned, real = (sum(values) for values in zip(*pairs))
        ratios = sorted(one / other for one, other in pairs if other)
        asked = statistics.fmean(max(row.resident, trained) + row.load.memory for row in done)
        taken = statistics.fmean(row.planned.record.summary["peak_bytes"] for row in done)
        found.add_row(
            experiment,
            str(len(done)),
            f"{planned:,.0f}",
            f"{real:,.0f}",
            f"{planned / real:.2f}",
            f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
            short(asked, "B"),
            short(taken, "B"),
            f"{asked / taken:.2f}",
        )
    return found


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
