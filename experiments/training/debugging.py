"""Ways to look for a fault in a training: one batch over and over, a profile of a few steps, anomaly detection."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.profiler import profile, schedule

from tasks.base import Batch, Task

WAITED, WARMED, PROFILED = 1, 1, 5  # steps before, of warming up, and of the profile
ROWS = 25  # of the table of a profile


class Watched:
    """A task whose batches are looked at: all are the first one, or each tells a profile that a step begins."""

    def __init__(self, task: Task, first_only: bool = False, profiled: profile | None = None):
        self.task, self.first_only, self.profiled = task, first_only, profiled

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def batch(self, step: int) -> Batch:
        if self.profiled and step:
            self.profiled.step()
        return self.task.batch(0 if self.first_only else step)


@contextlib.contextmanager
def debugging(kind: str | None, task: Task, folder: Path, console: Console) -> Iterator[Any]:
    """The task for a training that is looked into: overfit, profile, anomaly, or None for one that is not.

    A profile is printed, and written as profile.json into the run's folder, for chrome://tracing or Perfetto.
    """
    if kind == "overfit":
        yield Watched(task, first_only=True)
    elif kind == "anomaly":
        with torch.autograd.set_detect_anomaly(True):
            yield task
    elif kind == "profile":
        planned = schedule(wait=WAITED, warmup=WARMED, active=PROFILED, repeat=1)
        with profile(schedule=planned, profile_memory=True) as profiled:
            yield Watched(task, profiled=profiled)
        console.print(profiled.key_averages().table(sort_by="self_cpu_time_total", row_limit=ROWS), soft_wrap=True)
        profiled.export_chrome_trace(str(folder / "profile.json"))
        console.print(f"trace: {folder / 'profile.json'}", soft_wrap=True, highlight=False)
    else:
        yield task
