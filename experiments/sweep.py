"""The jobs of one call of the program, in this process or in those of a launcher: what each does, and how all ended."""

import json
import os
import sys
import time
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from experiments.config import register
from experiments.execution import USER_ERRORS, execute, plan
from experiments.parallel import is_first, processes
from experiments.records import Record, to_json
from experiments.training import Interrupted
from tasks.data.source import write_atomically

CALL = "EXPERIMENTS_CALL"  # the folder of this call, for its jobs in other processes
STOPPED = "stopped"

register()  # Hydra's launchers compose in processes of their own, which import this module and none before it


def begin(outputs: Path) -> Path:
    """A folder for how the jobs of this call end; it is known to all processes that are begun from here on."""
    folder = outputs / "hydra" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    os.environ[CALL] = str(folder.resolve())
    return folder


def job(composed: DictConfig) -> None:
    """One job. An error is told and written down, so that the other jobs of a sweep go on."""
    folder = Path(os.environ[CALL])
    here = folder.name.endswith(f"-{os.getpid()}")
    console = Console(stderr=True, force_terminal=None if here else False, quiet=not is_first())  # bars would mix
    overrides = list(HydraConfig.get().overrides.task)
    status = "not started" if (folder / STOPPED).exists() else attempt(composed, overrides, console)
    if status == "interrupted":
        write_atomically(folder / STOPPED, b"")
    known = HydraConfig.get().job
    number = 0 if OmegaConf.is_missing(known, "num") else known.num
    write_atomically(folder / f"{number:06d}.json", to_json({"job": " ".join(overrides), "status": status}))
    if status == "failed" and processes() > 1:
        sys.exit(1)  # the others wait for this one, and torchrun ends them


def attempt(composed: DictConfig, overrides: list[str], console: Console) -> str:
    """Run what is composed; returns how it ended."""
    try:
        print_result(console, execute(plan(composed, overrides), console))
        return "finished"
    except (Interrupted, KeyboardInterrupt):
        return "interrupted"
    except USER_ERRORS as error:
        fail(Console(stderr=True), error)
    except Exception:
        Console(stderr=True).print_exception()
    return "failed"


def end(folder: Path, console: Console) -> int:
    """Tell how the jobs ended, if there were several; returns the exit code."""
    ended = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    if len(ended) > 1:
        table = Table("job", "status")
        for one in ended:
            table.add_row(one["job"], one["status"])
        console.print(table)
    statuses = {one["status"] for one in ended}
    if "interrupted" in statuses:
        console.print("stopped; the same command goes on from here", style="yellow")
        return 130
    return 0 if statuses == {"finished"} else 1


def print_result(console: Console, record: Record) -> None:
    """Tell where a record lies and its foremost metrics: those with the shortest paths, and no single gates."""
    named = sorted(record.summary["metrics"].items(), key=lambda metric: metric[0].count("/"))
    told = [f"{name} {value:.4g}" for name, value in named if not name.startswith("gates/")]
    metrics = ", ".join(told[:10])
    console.print(f"{record.folder}: {metrics}", highlight=False)


def fail(console: Console, error: BaseException) -> None:
    """Tell an error in one line."""
    console.print(f"error: {' '.join(str(error).split())}", style="red", markup=False, soft_wrap=True)
