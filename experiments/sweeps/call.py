"""The jobs of one `experiments.run` command, in this process or in a launcher's processes, and their statuses."""

import contextlib
import json
import os
import shlex
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Column, Table

from experiments.config.composition import compose_unchecked
from experiments.config.errors import USER_ERRORS, HeldError, first_line, print_error
from experiments.config.schema import register
from experiments.recording.metrics import main_metric, meaning
from experiments.recording.processes import is_first, processes
from experiments.recording.record import ENDED, Record, to_json
from experiments.tracking.offline import in_sweep
from experiments.tracking.wandb_run import Tracker, tags_of
from experiments.training.execute import execute
from experiments.training.loop import Interrupted
from experiments.training.run_spec import RunSpec, resolve, spec_of_start
from tasks.data.source import write_atomically

CALL = "EXPERIMENTS_CALL"  # environment variable with this command's folder, for jobs in other processes
STOPPED = "stopped"
HELD = "held by another process"
TUNING = "OptunaSweeper"  # needs the results before it chooses the next values, so it waits for a locked run at once
ROOM = 2**15  # bytes that this command needs for its own files
PATIENCE = 60  # seconds that jobs have to save a checkpoint
RESUME = "stopped; run the same command again to resume"
KILLED = "a job's process was killed, possibly out of memory: run the same command again to resume"
CUT_OFF = "cut off"  # the status of a job whose process was killed, or that could not write its status


class Ended(NamedTuple):
    """How a job ended: its status, its record if it has a result, and why it has none."""

    status: str
    record: Record | None = None
    reason: str = ""

    @property
    def metrics(self) -> dict[str, float] | None:
        """The metrics of a run that finished and did not diverge."""
        return None if self.record is None or self.record.diverged else self.record.summary["metrics"]


register()  # the processes of Hydra's launchers import this module first


def begin(outputs: Path) -> Path:
    """Create the folder for the statuses of this command's jobs; processes started later find it in CALL.

    Raises OSError if `outputs` is not writable.
    """
    folder = outputs / "hydra" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    write_atomically(folder / "room", bytes(ROOM))
    (folder / "room").unlink()
    os.environ[CALL] = str(folder.resolve())
    return folder


def job(composed: DictConfig) -> dict[str, float] | None:
    """Execute one job; returns the metrics of its run if it finished. Errors are printed and recorded, not raised, so
    that the other jobs of a sweep continue."""
    folder = Path(os.environ[CALL])
    in_main = folder.name.endswith(f"-{os.getpid()}")
    terminal = None if in_main else False  # one progress bar
    console = Console(stderr=True, markup=False, force_terminal=terminal, quiet=not is_first())
    if not folder.is_dir():
        return None  # the command has ended
    overrides = list(HydraConfig.get().overrides.task)
    settings = HydraConfig.get().job
    file = folder / f"{0 if OmegaConf.is_missing(settings, 'num') else settings.num:06d}.json"
    with FileLock(file.with_suffix(".lock")), contextlib.nullcontext() if in_main else stoppable(folder):
        write_status(file, overrides, Ended(CUT_OFF))
        ended = Ended("not started")
        if not is_stopped(folder):
            ended = attempt(composed, overrides, console)
        if ended.status == HELD and HydraConfig.get().sweeper._target_.endswith(TUNING):
            ended = attempt(composed, overrides, console, wait=True)
        with contextlib.suppress(OSError):  # a full disk, which was reported before
            if ended.status == "interrupted":
                stop(folder)
            write_status(file, overrides, ended)
    if ended.status == "failed" and processes() > 1:
        sys.exit(1)  # the other processes wait for this one; torchrun stops them
    return ended.metrics


def stop(folder: Path) -> None:
    """Have the command's jobs save checkpoints and end, wherever they run, and no other one begin."""
    write_atomically(folder / STOPPED, b"")


def is_stopped(folder: Path) -> bool:
    """Whether the command's jobs are to end."""
    return (folder / STOPPED).exists()


def stop_when_asked(folder: Path) -> None:
    """Stop the jobs, which run in other processes, after Ctrl-C or SIGTERM.

    SIGINT is blocked in this thread, which those processes inherit: a terminal sends Ctrl-C to all of them, and some
    launchers' would kill their jobs within a second. Another thread receives it.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: stop(folder))
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


@contextlib.contextmanager
def stoppable(folder: Path) -> Iterator[None]:
    """Interrupt what this process does, as SIGTERM does, once the command is stopped or has died. A run in training
    saves a checkpoint first."""
    parent, over = os.getppid(), threading.Event()

    def interrupt(number: int, frame: object) -> None:
        if not over.is_set():
            raise KeyboardInterrupt

    def watch() -> None:
        while not over.wait(1):
            if os.getppid() != parent or is_stopped(folder):
                return os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, interrupt)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        signal.signal(signal.SIGTERM, before)


@cache
def exit_with(parent: int) -> None:
    """Send this process SIGTERM once its parent has exited; a run in training saves a checkpoint first."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def write_status(file: Path, overrides: list[str], ended: Ended) -> None:
    """Record how a job ended."""
    folder = str(ended.record.folder.resolve()) if ended.record else ""
    content = {"overrides": overrides, "status": ended.status, "record": folder, "reason": ended.reason}
    write_atomically(file, to_json(content))


def attempt(composed: DictConfig, overrides: list[str], console: Console, wait: bool = False) -> Ended:
    """Execute a composed run; returns how it ended.

    wait: if another process holds the run, wait for it. Otherwise a single run fails, and a run of a sweep is postponed
    to the end.
    """
    try:
        spec = resolve(composed, overrides)
        record = execute_for_agent(spec, console) if in_sweep() else execute(spec, console, wait)
        print_result(console, record)
        return Ended(record.status, record)
    except (Interrupted, KeyboardInterrupt):
        return Ended("interrupted")
    except HeldError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN and processes() == 1:
            console.print(f"postponed: {error}", highlight=False, soft_wrap=True)
            return Ended(HELD)
        print_error(console, error)
        return Ended("failed", reason=first_line(error))
    except USER_ERRORS as error:
        print_error(Console(markup=False, stderr=True), error)
        return Ended("failed", reason=first_line(error))
    except Exception as error:
        Console(markup=False, stderr=True).print_exception()
        return Ended("failed", reason=f"{type(error).__name__}: {first_line(error)}")


def execute_for_agent(spec: RunSpec, console: Console) -> Record:
    """Execute the run that the agent of a W&B sweep requests. The agent has started one W&B run and waits for its
    results: a run that finished before is logged again, and the run that this one starts from is not logged."""
    config, finished_before = spec.config, spec.record.finished
    if config["start"] and not finished_before:
        start = spec_of_start(spec)
        start.config["tracking"]["mode"] = "disabled"
        execute(start, console, wait=True)
    record = execute(spec, console)
    if finished_before:
        Tracker(config, record, tags_of(spec.overrides)).log_again(record)
    return record


def wait_for_held(folder: Path, console: Console) -> None:
    """Execute the postponed jobs; for each, first wait for the process that holds its run."""
    for file in sorted(folder.glob("*.json")):
        entry = json.loads(file.read_text())
        if entry["status"] == HELD and not is_stopped(folder):
            overrides = entry["overrides"]
            write_status(file, overrides, attempt(compose_unchecked(overrides), overrides, console, wait=True))


def settle(folder: Path) -> None:
    """Stop the jobs that still run and wait until they have ended. Killed ones leave their records interrupted."""
    stop(folder)
    for file in sorted(folder.glob("*.json")):
        with contextlib.suppress(*USER_ERRORS), FileLock(file.with_suffix(".lock"), timeout=PATIENCE):
            entry = json.loads(file.read_text())
            if entry["status"] == CUT_OFF:
                record = resolve(compose_unchecked(entry["overrides"]), entry["overrides"]).record
                if record.status == "running":
                    with record.locked():
                        record.set_status("interrupted")


def entries(folder: Path) -> list[dict[str, Any]]:
    """The overrides and the status of every job that was begun."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]


def was_killed(folder: Path) -> bool:
    """Whether a job's process ended before the job did."""
    return any(entry["status"] == CUT_OFF for entry in entries(folder))


def end(folder: Path, console: Console) -> int:
    """Print how many jobs ended how if there are several, and which have no result, and why; returns the exit code."""
    begun = entries(folder)
    if len(begun) > 1:
        counts = Counter(entry["status"] for entry in begun)
        console.print(", ".join(f"{count} {status}" for status, count in counts.items()), highlight=False)
        shared = set[str].intersection(*({*entry["overrides"]} for entry in begun))
        table = Table("job", Column("status", no_wrap=True), "why")
        for entry in begun:
            if entry["status"] not in ("finished", "not started"):
                own = [override for override in entry["overrides"] if override not in shared]
                table.add_row(shlex.join(own), entry["status"], entry["reason"])
        if table.row_count:
            console.print(table)
    if was_killed(folder):
        console.print(f"error: {KILLED}", style="red", soft_wrap=True)
        return 1
    statuses = {entry["status"] for entry in begun}
    if "interrupted" in statuses:
        console.print(RESUME, style="yellow")
        return 130
    ended = {*ENDED} if len(begun) > 1 else {"finished"}  # that a run diverges may be what a sweep is to find out
    return 0 if statuses <= ended else 1  # no statuses if Hydra only printed something, as with --cfg


def print_result(console: Console, record: Record) -> None:
    """Print a record's folder and ten of its metrics: the main one with its unit, and those with the shortest paths,
    without the gates of each head.
    Of a run that diverged, where it did.
    """
    if record.diverged:
        step, steps = record.summary["diverged"], record.summary["steps"]
        console.print(
            f"diverged: {record.folder}: by step {step} of {steps} the loss was no finite number: choose a smaller "
            "optimizer.lr or training.initial_gain",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
        return
    found = record.summary["metrics"]
    main = main_metric(record.config, found)
    by_depth = sorted((name for name in found if name != main), key=lambda name: name.count("/"))
    others = [f"{name} {found[name]:.4g}" for name in by_depth if not name.startswith("gates/")]
    unit, direction = meaning(main)
    first = f"{main} {found[main]:.4g} {unit}".strip() + f" ({direction})" * bool(direction) if found else ""
    console.print(f"{record.folder}: {', '.join([first, *others[:9]])}", highlight=False, soft_wrap=True)
