"""Where the time goes from typing a command to the first training step, in fresh processes."""

import json
import statistics
import subprocess
import sys
import time
from tempfile import TemporaryDirectory

from rich.table import Table

from experiments.recording.code import ROOT

REPEATS = 3
SETTINGS = ("experiment=positions", "scale=smoke", "position=rope", "training.steps=1")
PHASES = """
import json, sys, time
marks = {{}}
def mark(name, started=[time.perf_counter()]):
    marks[name] = time.perf_counter() - started[0]
    started[0] = time.perf_counter()
import torch; mark("import torch")
torch.optim.AdamW([torch.zeros(1)]); mark("first optimizer, for which torch imports its compiler")
from experiments.training import execute, run_spec
from experiments.config.compose import compose
mark("import the rest")
composed = compose({overrides!r}); mark("compose and check the configuration")
spec = run_spec.resolve(composed); mark("fingerprints of data and code")
task, model = execute.assemble(spec); mark("build data, task and model")
execute.warm_up(spec.config); mark("start W&B")
task.loss(model, task.batch(0), None)[0].backward(); mark("first step")
print(json.dumps(marks))
"""


def start_table() -> Table:
    """Seconds of each phase of a run's start, and of the commands that start none."""
    table = Table("start", "s", title=f"from a command to the first training step; median of {REPEATS} processes")
    with TemporaryDirectory() as outputs:
        code = PHASES.format(overrides=[*SETTINGS, f"outputs={outputs}"])
        ran = [ended("-c", code) for _ in range(1 + REPEATS)][1:]  # the first one makes the caches
    marks = [json.loads(output.splitlines()[-1]) for output, _ in ran]
    for name in marks[0]:
        table.add_row(name, f"{statistics.median(own[name] for own in marks):.2f}")
    table.add_row("all of these, with Python itself", f"{statistics.median(seconds for _, seconds in ran):.2f}")
    for module in ("run", "reproduce"):
        seconds = [ended("-m", f"experiments.{module}", "--help")[1] for _ in range(REPEATS)]
        table.add_row(f"{module} --help", f"{statistics.median(seconds):.2f}")
    return table


def ended(*arguments: str) -> tuple[str, float]:
    """The output and the seconds of a fresh process of Python."""
    started = time.perf_counter()
    process = subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return process.stdout, time.perf_counter() - started
