"""Overhead of a sweep's jobs: the time for composing, building, tracking and recording, beyond training."""

import statistics
import subprocess
import sys
import time
from io import StringIO
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from experiments.config.compose import compose
from experiments.recording.code import ROOT
from experiments.recording.record import records
from experiments.training.execute import execute
from experiments.training.run_spec import resolve

JOBS = 20
MANY = 100  # jobs of the sweep for which the overhead is computed
SETTINGS = ("experiment=positions", "scale=smoke", "position=rope", "threads=1", "training.steps=150")  # about a second


def sweep_table() -> Table:
    """Seconds per job, in `execute` and in a sweep, and the overhead beyond training and evaluation."""
    with TemporaryDirectory() as outputs:
        sweep_seconds(range(1), outputs)  # prepares the data
        single = sweep_seconds(range(1, 2), outputs)
        together = sweep_seconds(range(2, 3 + JOBS), outputs)
        executed = statistics.mean(execute_seconds(outputs)[1:])
        own = statistics.mean(record.summary["seconds"] for record in records(outputs))
    job = (together - single) / JOBS
    title = f"sweep with the basic launcher; a job trains and evaluates for {own:.2f} s; mean of {JOBS}"
    table = Table("", "s per job", "overhead", title=title)
    table.add_row("execute()", f"{executed:.3f}", f"{executed / own - 1:.1%}")
    table.add_row("job of a sweep", f"{job:.3f}", f"{job / own - 1:.1%}")
    shared = job + (single - job) / MANY
    table.add_row(f"job of a sweep of {MANY}, with program start", f"{shared:.3f}", f"{shared / own - 1:.1%}")
    return table


def sweep_seconds(seeds: range, outputs: str) -> float:
    """Seconds of a sweep over these seeds, in its own process."""
    overrides = [*SETTINGS, f"outputs={outputs}", f"seed=range({seeds.start},{seeds.stop})"]
    command = [sys.executable, "-m", "experiments.run", "-m", *overrides]
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


def execute_seconds(outputs: str) -> list[float]:
    """Seconds of `execute` for 1 + JOBS jobs in this process; the first one also starts what all runs share."""
    times = []
    for seed in range(JOBS + 1):
        overrides = [*SETTINGS, f"outputs={outputs}", f"seed={MANY + seed}"]
        spec = resolve(compose(overrides), overrides)
        started = time.perf_counter()
        execute(spec, Console(markup=False, file=StringIO()))
        times.append(time.perf_counter() - started)
    return times
