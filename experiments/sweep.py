"""The jobs of one call of the program, in this process or in those of a launcher: what each does, and how all ended."""

import contextlib
import json
import os
import time
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from experiments.config import compose_unchecked, register
from experiments.execution import USER_ERRORS, execute, plan
from experiments.records import HeldError, Record, to_json
from experiments.training import Interrupted
from tasks.data.source import write_atomically

CALL = "EXPERIMENTS_CALL"  # the folder of this call, for its jobs in other processes
STOPPED = "stopped"
HELD = "held by another process"
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


def job(composed: DictConfig) -> None:
    """One job. An error is told and written down, so that the other jobs of a sweep go on."""
    folder = Path(os.environ[CALL])
    here = folder.name.endswith(f"-{os.getpid()}")
    console = Console(stderr=True, force_terminal=None if here else False)  # bars of several processes would mix
    overrides = list(HydraConfig.get().overrides.task)
    known = HydraConfig.get().job
    file = folder / f"{0 if OmegaConf.is_missing(known, 'num') else known.num:06d}.json"
    note(file, overrides, CUT_OFF)
    status = "not started" if (folder / STOPPED).exists() else attempt(composed, overrides, console)
    with contextlib.suppress(OSError):  # of a full disk, which has been told
        if status == "interrupted":
            write_atomically(folder / STOPPED, b"")
        note(file, overrides, status)


def note(file: Path, overrides: list[str], status: str) -> None:
    """Write down how a job ended."""
    write_atomically(file, to_json({"overrides": overrides, "status": status}))


def attempt(composed: DictConfig, overrides: list[str], console: Console, wait: bool = False) -> str:
    """Run what is composed; returns how it ended. wait: until another process that is at this run is done with it; if
    not, one run fails there, and a run of a sweep is put off to the end."""
    try:
        print_result(console, execute(plan(composed, overrides), console, wait))
        return "finished"
    except (Interrupted, KeyboardInterrupt):
        return "interrupted"
    except HeldError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            console.print(f"put off: {error}", highlight=False, soft_wrap=True)
            return HELD
        fail(console, error)
    except USER_ERRORS as error:
        fail(console, error)
    except Exception:
        console.print_exception()
    return "failed"


def wait_for_held(folder: Path, console: Console) -> None:
    """Wait for the jobs that other processes were at when their turn came, and run what these leave."""
    for file in sorted(folder.glob("*.json")):
        known = json.loads(file.read_text())
        if known["status"] == HELD and not (folder / STOPPED).exists():
            overrides = known["overrides"]
            note(file, overrides, attempt(compose_unchecked(overrides), overrides, console, wait=True))


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
    console.print(f"{record.folder}: {metrics}", highlight=False)


def fail(console: Console, error: BaseException) -> None:
    """Tell an error in one line."""
    console.print(f"error: {' '.join(str(error).split())}", style="red", markup=False, soft_wrap=True)
