"""`make reproduce`: run what the ledger lacks, breadth first, and rewrite ledger and page as records arrive."""

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from experiments import environment
from experiments.claims import check_levels, claims
from experiments.config import ConfigError, groups, nearest
from experiments.execution import USER_ERRORS
from experiments.grid import Job, in_order, jobs, jobs_of_all
from experiments.ledger import Evidence, judge_all
from experiments.parallel import check_alone
from experiments.report.publish import publish
from experiments.seeds import next_seeds
from experiments.sweep import fail
from experiments.workers import on_cluster, on_this_machine

EXACT = "properties"  # nothing is trained in it, and claims of every idea rest on it
REWRITE_EVERY = 20  # seconds between two versions of the page while runs come in, more where writing it takes long


def main(arguments: Sequence[str]) -> int:
    """Reproduce; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.reproduce", description=__doc__)
    parser.add_argument("--scale", default="laptop", help="smoke, laptop, gpu or paper")
    parser.add_argument("--only", default="", help="experiments to run, with commas between; all if empty")
    parser.add_argument("--outputs", default="outputs")
    parser.add_argument("--no-runs", action="store_true", help="only show what the records say")
    parser.add_argument("--seeds", type=int, default=0, help="add seeds until all is decided, or there are so many")
    parser.add_argument("--workers", type=int, default=0, help="runs at a time; one a core if 0, one on a GPU")
    parser.add_argument("--launcher", default="", help="slurm, to have a cluster run them; this machine if empty")
    options = parser.parse_args(arguments)
    console = Console()
    started = time.monotonic()
    try:
        check_alone("a ledger")
        with console.status("looking up which runs there are"):
            evidence = gather(options.scale, options.outputs, options.seeds)
        wanted = chosen(options.only, evidence)
        done, failures = 0, []
        todo = [] if options.no_runs else lacking(evidence, wanted)
        while todo:
            failed = run(todo, evidence, options.workers, options.launcher, console)
            done += len(todo) - len(failed)
            failures += failed
            todo = next_seeds(judge_all(evidence), evidence, wanted) if options.seeds and not failed else []
        page = publish(evidence, options.scale, options.outputs, console)
    except USER_ERRORS as error:
        fail(console, error)
        return 1
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here", style="yellow")
        return 130
    for job, message in failures:
        console.print(f"failed: {' '.join(job.overrides)}: {message}", style="red", markup=False, soft_wrap=True)
    console.print(f"{done} runs in {time.monotonic() - started:.0f} s; {page}", soft_wrap=True)
    return 1 if failures else 0


def gather(scale: str, outputs: str, seeds: int = 0) -> Evidence:
    """Every job that a claim could rest on, in the order to run them, with its record, finished or not.

    seeds: how many seeds there are to be at least; without it, those of the sweeps and what was once added to them.
    Raises ConfigError for a scale that does not exist and ClaimError for a claim about runs that do not.
    """
    if scale not in groups()["scale"]:
        raise ConfigError(f"scale={scale}: no such choice; {nearest(scale, groups()['scale'])}")
    experiments = list(dict.fromkeys(c.experiment for claim in claims() for c in claim.comparisons))
    plans = {job: job.plan() for job in jobs_of_all(experiments, [scale], outputs, seeds)[scale]}
    for experiment in experiments:
        count = 1 + max(job.seed for job in plans if job.experiment == experiment)
        added = {job: job.plan() for job in jobs(experiment, scale, outputs, count + 1) if job.seed == count}
        while any(plan.record.status != "new" for plan in added.values()):
            plans |= added
            count += 1
            added = {job: job.plan() for job in jobs(experiment, scale, outputs, count + 1) if job.seed == count}
    check_levels(claims(), {experiment: levels_of(experiment, plans) for experiment in experiments})
    return {job: plans[job].record for job in in_order(plans)}


def levels_of(experiment: str, known: Iterable[Job]) -> dict[str, set[str]]:
    """The levels that each factor of an experiment has among these jobs."""
    found: dict[str, set[str]] = {}
    for job in known:
        for name, level in job.factors if job.experiment == experiment else ():
            found.setdefault(name, set()).add(level)
    return found


def lacking(evidence: Evidence, experiments: list[str]) -> list[Job]:
    """The runs of these experiments' own sweeps that are not finished."""
    return [
        job
        for job, record in evidence.items()
        if job.experiment in experiments and not job.added and not record.finished
    ]


def chosen(only: str, evidence: Evidence) -> list[str]:
    """The experiments named by `only`, and what costs nothing; all if it is empty."""
    known = list(dict.fromkeys(job.experiment for job in evidence))
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ConfigError(f"only={name}: no claim rests on such an experiment; {nearest(name, known)}")
    return [*names, EXACT] if names else known


def run(todo: list[Job], evidence: Evidence, workers: int, launcher: str, console: Console) -> list[tuple[Job, str]]:
    """Run the jobs, on a cluster if there is a launcher; returns those that failed and why."""
    workers = workers or (1 if environment.processor_is_gpu() else len(os.sched_getaffinity(0)))
    scale, outputs = todo[0].scale, todo[0].outputs
    ended = on_cluster(todo, launcher, Path(outputs) / "hydra") if launcher else on_this_machine(todo, workers)
    stop = threading.Event()

    def ask_to_stop(number: int, frame: object) -> None:
        stop.set()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    place = f"by {launcher}" if launcher else f"{workers} at a time"
    console.print(f"{len(todo)} runs to go, {place}, recorded in {outputs}/runs")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    failures: list[tuple[Job, str]] = []
    due = time.monotonic() + REWRITE_EVERY
    with (
        contextlib.closing(ended),
        Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as bar,
    ):
        line = bar.add_task("reproducing", total=len(todo))
        for job, message in ended:
            if stop.is_set():  # a library that was at work when the signal came kept the exception to itself
                raise KeyboardInterrupt
            if message:
                failures.append((job, message))
            bar.update(line, advance=1, description=job.experiment)
            if time.monotonic() > due:
                started = time.monotonic()
                publish(evidence, scale, outputs, None)
                due = time.monotonic() + max(REWRITE_EVERY, 50 * (time.monotonic() - started))
    return failures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
