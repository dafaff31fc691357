"""The jobs of one `experiments.run` command, in this process or in a launcher's processes, and their statuses."""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from functools import cache
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from experiments.config.composition import compose_unchecked
from experiments.config.errors import USER_ERRORS, HeldError, print_error
from experiments.config.schema import register
from experiments.records.processes import is_first, processes
from experiments.records.record import Record, to_json
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
CUT_OFF = "cut off"  # the status of a job whose process was killed, or that could not write its status

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
    one_bar = None if in_main else False  # a terminal for this process only: one progress bar
    console = Console(markup=False, stderr=True, force_terminal=one_bar, quiet=not is_first())
    if not in_main:
        exit_with(os.getppid())
    overrides = list(HydraConfig.get().overrides.task)
    settings = HydraConfig.get().job
    file = folder / f"{0 if OmegaConf.is_missing(settings, 'num') else settings.num:06d}.json"
    write_status(file, overrides, CUT_OFF)
    stopped = (folder / STOPPED).exists()
    status, metrics = ("not started", None) if stopped else attempt(composed, overrides, console)
    if status == HELD and HydraConfig.get().sweeper._target_.endswith(TUNING):
        status, metrics = attempt(composed, overrides, console, wait=True)
    with contextlib.suppress(OSError):  # a full disk, which was reported before
        if status == "interrupted":
            write_atomically(folder / STOPPED, b"")
        write_status(file, overrides, status)
    if status == "failed" and processes() > 1:
        sys.exit(1)  # the other processes wait for this one; torchrun stops them
    return metrics


@cache
def exit_with(parent: int) -> None:
    """Send this process SIGTERM once its parent has exited; a run in training saves a checkpoint first."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def write_status(file: Path, overrides: list[str], status: str) -> None:
    """Record the status of a job."""
    write_atomically(file, to_json({"overrides": overrides, "status": status}))


def attempt(
    composed: DictConfig, overrides: list[str], console: Console, wait: bool = False
) -> tuple[str, dict[str, float] | None]:
    """Execute a composed run; returns its status and, if it finished, its metrics.

    wait: if another process holds the run, wait for it. Otherwise a single run fails, and a run of a sweep is postponed
    to the end.
    """
    try:
        spec = resolve(composed, overrides)
        record = execute_for_agent(spec, console) if in_sweep() else execute(spec, console, wait)
        print_result(console, record)
        return "finished", record.summary["metrics"]
    except (Interrupted, KeyboardInterrupt):
        return "interrupted", None
    except HeldError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN and processes() == 1:
            console.print(f"postponed: {error}", highlight=False, soft_wrap=True)
            return HELD, None
        print_error(console, error)
    except USER_ERRORS as error:
        print_error(Console(markup=False, stderr=True), error)
    except Exception:
        Console(markup=False, stderr=True).print_exception()
    return "failed", None


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
        Tracker(config, record.id, tags_of(spec.overrides)).log_again(record)
    return record


def wait_for_held(folder: Path, console: Console) -> None:
    """Execute the postponed jobs; for each, first wait for the process that holds its run."""
    for file in sorted(folder.glob("*.json")):
        entry = json.loads(file.read_text())
        if entry["status"] == HELD and not (folder / STOPPED).exists():
            overrides = entry["overrides"]
            write_status(file, overrides, attempt(compose_unchecked(overrides), overrides, console, wait=True)[0])


def end(folder: Path, console: Console) -> int:
    """Print the statuses of the jobs if there are several; returns the exit code."""
    entries = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    if len(entries) > 1:
        table = Table("job", "status")
        for entry in entries:
            table.add_row(" ".join(entry["overrides"]), entry["status"])
        console.print(table)
    statuses = {entry["status"] for entry in entries}
    if "interrupted" in statuses:
        console.print("stopped; run the same command again to resume", style="yellow")
        return 130
    return 0 if statuses <= {"finished"} else 1  # no statuses if Hydra only printed something, as with --cfg


def print_result(console: Console, record: Record) -> None:
    """Print a record's folder and ten of its metrics: those with the shortest paths, without the gates of each head."""
    by_depth = sorted(record.summary["metrics"].items(), key=lambda metric: metric[0].count("/"))
    values = [f"{name} {value:.4g}" for name, value in by_depth if not name.startswith("gates/")]
    metrics = ", ".join(values[:10])
    console.print(f"{record.folder}: {metrics}", highlight=False, soft_wrap=True)
