"""The jobs of one call of the program, in this process or in those of a launcher: what each does, and how all ended."""

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

CALL = "EXPERIMENTS_CALL"  # the folder of this call, for its jobs in other processes
STOPPED = "stopped"
HELD = "held by another process"
TUNING = "OptunaSweeper"  # which chooses the next values by how the last ones did, and so waits for a run that is held
ROOM = 2**15  # bytes that a call writes for itself
CUT_OFF = "cut off"  # what stands for a job whose process was killed, or that could write no more

register()  # Hydra's launchers compose in processes of their own, which import this module and none before it


def begin(outputs: Path) -> Path:
    """A folder for how the jobs of this call end; it is known to all processes that are begun from here on.

    Raises OSError if `outputs` cannot be written.
    """
    folder = outputs / "hydra" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    write_atomically(folder / "room", bytes(ROOM))
    (folder / "room").unlink()
    os.environ[CALL] = str(folder.resolve())
    return folder


def job(composed: DictConfig) -> dict[str, float] | None:
    """One job; returns its run's metrics if that is finished. An error is told and written down, so that the other jobs
    of a sweep go on."""
    folder = Path(os.environ[CALL])
    here = folder.name.endswith(f"-{os.getpid()}")
    console = Console(stderr=True, force_terminal=None if here else False, quiet=not is_first())  # bars would mix
    if not here:
        end_with(os.getppid())
    overrides = list(HydraConfig.get().overrides.task)
    known = HydraConfig.get().job
    file = folder / f"{0 if OmegaConf.is_missing(known, 'num') else known.num:06d}.json"
    note(file, overrides, CUT_OFF)
    stopped = (folder / STOPPED).exists()
    status, metrics = ("not started", None) if stopped else attempt(composed, overrides, console)
    if status == HELD and HydraConfig.get().sweeper._target_.endswith(TUNING):
        status, metrics = attempt(composed, overrides, console, wait=True)
    with contextlib.suppress(OSError):  # of a full disk, which has been told
        if status == "interrupted":
            write_atomically(folder / STOPPED, b"")
        note(file, overrides, status)
    if status == "failed" and processes() > 1:
        sys.exit(1)  # the others wait for this one, and torchrun ends them
    return metrics


@cache
def end_with(parent: int) -> None:
    """Have this process end when its parent is gone; a run in training leaves a checkpoint."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def note(file: Path, overrides: list[str], status: str) -> None:
    """Write down how a job ended."""
    write_atomically(file, to_json({"overrides": overrides, "status": status}))


def attempt(
    composed: DictConfig, overrides: list[str], console: Console, wait: bool = False
) -> tuple[str, dict[str, float] | None]:
    """Run what is composed; returns how it ended and, of what finished, the metrics.

    wait: until another process that is at this run is done with it; if not, one run fails there, and a run of a sweep
    is put off to the end.
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
            console.print(f"put off: {error}", highlight=False, soft_wrap=True)
            return HELD, None
        print_error(console, error)
    except USER_ERRORS as error:
        print_error(Console(stderr=True), error)
    except Exception:
        Console(stderr=True).print_exception()
    return "failed", None


def execute_for_agent(spec: RunSpec, console: Console) -> Record:
    """Run what an agent of W&B's asks for. It has begun one run there and waits for its results: what was finished
    before is logged again, and a run that this one starts from is not logged."""
    config, before = spec.config, spec.record.finished
    if config["start"] and not before:
        start = spec_of_start(spec)
        start.config["tracking"]["mode"] = "disabled"
        execute(start, console, wait=True)
    record = execute(spec, console)
    if before:
        Tracker(config, record.id, tags_of(spec.overrides)).log_again(record)
    return record


def wait_for_held(folder: Path, console: Console) -> None:
    """Wait for the jobs that other processes were at when their turn came, and run what these leave."""
    for file in sorted(folder.glob("*.json")):
        known = json.loads(file.read_text())
        if known["status"] == HELD and not (folder / STOPPED).exists():
            overrides = known["overrides"]
            note(file, overrides, attempt(compose_unchecked(overrides), overrides, console, wait=True)[0])


def end(folder: Path, console: Console) -> int:
    """Tell how the jobs ended, if there were several; returns the exit code."""
    ended = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    if len(ended) > 1:
        table = Table("job", "status")
        for one in ended:
            table.add_row(" ".join(one["overrides"]), one["status"])
        console.print(table)
    statuses = {one["status"] for one in ended}
    if "interrupted" in statuses:
        console.print("stopped; the same command goes on from here", style="yellow")
        return 130
    return 0 if statuses <= {"finished"} else 1  # there are none where Hydra only showed something


def print_result(console: Console, record: Record) -> None:
    """Tell where a record lies and its foremost metrics: those with the shortest paths, and no single gates."""
    named = sorted(record.summary["metrics"].items(), key=lambda metric: metric[0].count("/"))
    told = [f"{name} {value:.4g}" for name, value in named if not name.startswith("gates/")]
    metrics = ", ".join(told[:10])
    console.print(f"{record.folder}: {metrics}", highlight=False, soft_wrap=True)
