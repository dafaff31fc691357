"""What a sweep's short jobs cost over their own time: planned, built, tracked and recorded one after the other."""

import statistics
import subprocess
import sys
import time
from io import StringIO
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from experiments.config.compose import compose
from experiments.records.code import ROOT
from experiments.records.record import records
from experiments.training.execute import execute
from experiments.training.run_spec import resolve

JOBS = 20
MANY = 100  # jobs of the sweep that is reckoned with
SETTINGS = ("experiment=positions", "scale=smoke", "position=rope", "threads=1", "training.steps=150")  # about a second


def sweep_table() -> Table:
    """Seconds of a job, in `execute` and in a sweep, beside the time that it trains and evaluates."""
    with TemporaryDirectory() as outputs:
        swept(range(1), outputs)  # reads and splits the data, once
        single = swept(range(1, 2), outputs)
        together = swept(range(2, 3 + JOBS), outputs)
        executed = statistics.mean(executions(outputs)[1:])
        own = statistics.mean(record.summary["seconds"] for record in records(outputs))
    job = (together - single) / JOBS
    title = f"a sweep by the basic launcher, of jobs that train and evaluate for {own:.2f} s; mean of {JOBS}"
    table = Table("", "s a job", "over its own time", title=title)
    table.add_row("execute()", f"{executed:.3f}", f"{executed / own - 1:.1%}")
    table.add_row("a job of a sweep", f"{job:.3f}", f"{job / own - 1:.1%}")
    shared = job + (single - job) / MANY
    table.add_row(f"a job of {MANY}, with the program's start", f"{shared:.3f}", f"{shared / own - 1:.1%}")
    return table


def swept(seeds: range, outputs: str) -> float:
    """Seconds of a sweep over these seeds, as a process of its own."""
    overrides = [*SETTINGS, f"outputs={outputs}", f"seed=range({seeds.start},{seeds.stop})"]
    command = [sys.executable, "-m", "experiments.run", "-m", *overrides]
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


def executions(outputs: str) -> list[float]:
    """Seconds of `execute` for as many jobs in this process, the first of which starts what runs share."""
    times = []
    for seed in range(JOBS + 1):
        overrides = [*SETTINGS, f"outputs={outputs}", f"seed={MANY + seed}"]
        planned = resolve(compose(overrides), overrides)
        started = time.perf_counter()
        execute(planned, Console(file=StringIO()))
        times.append(time.perf_counter() - started)
    return times
