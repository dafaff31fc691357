"""`make reproduce`: execute the runs that the ledger lacks, and update ledger and page as records arrive."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments.config.command import command
from experiments.report.unchanged import Shown


@command
def main(arguments: Sequence[str]) -> int:
    """Reproduce; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.reproduce", description=__doc__)
    parser.add_argument("--scale", default="laptop", help="smoke, laptop, gpu or paper")
    parser.add_argument("--only", default="", help="experiments to run, separated by commas; all if empty")
    parser.add_argument("--outputs", default="outputs")
    parser.add_argument("--no-runs", action="store_true", help="only update ledger and page from existing records")
    parser.add_argument("--next-look", action="store_true", help="add seeds up to the next look of what is undecided")
    parser.add_argument("--workers", type=int, default=0, help="runs at a time (0: one per core, or one on a GPU)")
    parser.add_argument("--launcher", default="", help="slurm for a cluster; this machine if empty")
    parser.add_argument("--shifted-rates", action="store_true", help="judge half a decade below and above too")
    options = parser.parse_args(arguments)
    console, started = Console(markup=False, record=True), time.monotonic()
    shown = Shown(sorted(vars(options).items()), options.outputs, console)
    if (text := shown.again()) is not None:
        sys.stdout.write(text)
        return ended(0, started, options.outputs, console)
    # imported after the arguments: --help does not wait for torch, nor does a ledger that has not changed
    from experiments.ledger.runs import chosen, gather, last_look
    from experiments.recording.look import one_look
    from experiments.report.publish import publish
    from experiments.tracking.switches import check_switches

    check_switches()
    requested, seeds = chosen(options.only), last_look() if options.next_look else 0
    if options.no_runs:
        with one_look(options.outputs), console.status("reading records"):
            publish(gather(options.scale, options.outputs), options.scale, options.outputs, console)
        done, failures = 0, list[str]()
    else:
        done, failures = execute(options, requested, seeds, console)
    if not done and not failures:
        shown.keep(console.export_text(styles=console.is_terminal))
    for message in failures:
        console.print(f"failed: {message}", style="red", soft_wrap=True)
    return ended(done, started, options.outputs, console) or bool(failures)


def execute(options: argparse.Namespace, requested: list[str], seeds: int, console: Console) -> tuple[int, list[str]]:
    """Run what the ledger lacks, and show it; returns how many runs ended, and which failed and why."""
    from experiments.config.checks import check_value
    from experiments.config.schema import Processors
    from experiments.ledger.runs import (
        EXACT,
        TIMED,
        at_shifted_rates,
        gather,
        missing_trials,
        next_look,
        unfinished,
    )
    from experiments.ledger.verdicts import judge_all
    from experiments.report.publish import publish
    from experiments.sweeps.grid import Job
    from experiments.sweeps.run_jobs import run_jobs
    from experiments.training.distributed import check_alone

    check_alone("a ledger")
    check_value(options.workers or None, Processors | None, "--workers")
    with console.status("reading records"):
        evidence = gather(options.scale, options.outputs, seeds)
    done, failures = 0, list[tuple[Job, str]]()

    def rewrite() -> None:
        publish(evidence, options.scale, options.outputs, None)

    trials = missing_trials(evidence, requested)
    while trials and not failures:  # each may show that a grid must grow
        failures = run_jobs(trials, options.workers, options.launcher, rewrite, console)
        done += len(trials) - len(failures)
        evidence = gather(options.scale, options.outputs, seeds)
        trials = missing_trials(evidence, requested)
    todo = [] if failures else unfinished(evidence, requested)
    if not failures and all(job.experiment == EXACT for job in todo):  # the first look is complete
        todo += next_look(judge_all(evidence), evidence, requested) if options.next_look else []
        todo += at_shifted_rates(evidence, requested) if options.shifted_rates else []
    untimed = [job for job in todo if job.experiment not in TIMED]
    for some, workers in ((untimed, options.workers), ([job for job in todo if job not in untimed], 1)):
        if some:
            failed = run_jobs(some, workers, options.launcher, rewrite, console)
            failures, done = failures + failed, done + len(some) - len(failed)
    publish(evidence, options.scale, options.outputs, console)
    return done, [f"{' '.join(job.overrides)}: {message}" for job, message in failures]


def ended(done: int, started: float, outputs: str, console: Console) -> int:
    """Print how many runs there were and where the page lies; returns 0."""
    page = Path(outputs) / "report" / "index.html"
    console.print(f"{done} runs in {time.monotonic() - started:.0f} s; {page}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
