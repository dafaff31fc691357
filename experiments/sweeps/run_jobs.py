"""Execute the ledger's runs with a progress bar, and update the ledger while records arrive."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from experiments.recording import environment
from experiments.sweeps.executors import on_cluster, on_this_machine
from experiments.sweeps.grid import Job

REWRITE_EVERY = 20  # minimal seconds between two updates of the page; more if writing it takes long


def run_jobs(
    todo: list[Job], workers: int, launcher: str, rewrite: Callable[[], None], console: Console
) -> list[tuple[Job, str]]:
    """Execute the jobs; returns the failed ones with their error messages.

    workers: jobs at a time on this machine (0: one per core, or one on a GPU). launcher: of a cluster, empty for this
    machine. rewrite: updates ledger and page; called from time to time while runs finish.
    Raises KeyboardInterrupt after Ctrl-C or SIGTERM, once the runs in training have saved checkpoints.
    """
    workers = workers or (1 if environment.processor_is_gpu() else len(os.sched_getaffinity(0)))
    outputs = todo[0].outputs
    ended = on_cluster(todo, launcher, Path(outputs) / "hydra") if launcher else on_this_machine(todo, workers)
    stop = threading.Event()

    def ask_to_stop(number: int, frame: object) -> None:
        stop.set()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    mode = f"with {launcher}" if launcher else f"{workers} at a time"
    console.print(f"{len(todo)} runs to execute, {mode}; records are in {outputs}/runs", markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    failures: list[tuple[Job, str]] = []
    due = time.monotonic() + REWRITE_EVERY
    with (
        contextlib.closing(ended),
        Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as bar,
    ):
        line = bar.add_task("reproducing", total=len(todo))
        for job, message in ended:
            if stop.is_set():  # a library may have caught the exception that the signal raised
                raise KeyboardInterrupt
            if message:
                failures.append((job, message))
            bar.update(line, advance=1, description=job.experiment)
            if time.monotonic() > due:
                started = time.monotonic()
                rewrite()
                due = time.monotonic() + max(REWRITE_EVERY, 50 * (time.monotonic() - started))
    return failures
