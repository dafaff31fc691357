"""The jobs of one call of the program, in this process or in those of a launcher: what each does, and how all ended."""

import json
import os
import time
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from experiments.config import register
from experiments.execution import USER_ERRORS, Plan, execute, plan, plan_start, tags_of
from experiments.records import Record, to_json
from experiments.tracking import Tracker, in_sweep
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


def job(composed: DictConfig) -> dict[str, float] | None:
    """One job; returns its run's metrics if that is finished. An error is told and written down, so that the other jobs
    of a sweep go on."""
    folder = Path(os.environ[CALL])
    here = folder.name.endswith(f"-{os.getpid()}")
    console = Console(stderr=True, force_terminal=None if here else False)  # bars of several processes would mix
    overrides = list(HydraConfig.get().overrides.task)
    stopped = (folder / STOPPED).exists()
    status, metrics = ("not started", None) if stopped else attempt(composed, overrides, console)
    if status == "interrupted":
        write_atomically(folder / STOPPED, b"")
    known = HydraConfig.get().job
    number = 0 if OmegaConf.is_missing(known, "num") else known.num
    write_atomically(folder / f"{number:06d}.json", to_json({"job": " ".join(overrides), "status": status}))
    return metrics


def attempt(composed: DictConfig, overrides: list[str], console: Console) -> tuple[str, dict[str, float] | None]:
    """Run what is composed; returns how it ended and, of what finished, the metrics."""
    try:
        planned = plan(composed, overrides)
        record = (execute_for_agent if in_sweep() else execute)(planned, console)
        print_result(console, record)
        return "finished", record.summary["metrics"]
    except (Interrupted, KeyboardInterrupt):
        return "interrupted", None
    except USER_ERRORS as error:
        fail(console, error)
    except Exception:
        console.print_exception()
    return "failed", None


def execute_for_agent(planned: Plan, console: Console) -> Record:
    """Run what an agent of W&B's asks for. It has begun one run there and waits for its results: what was finished
    before is logged again, and a run that this one starts from is not logged."""
    config, before = planned.config, planned.record.finished
    if config["start"] and not before:
        start = plan_start(planned)
        start.config["tracking"]["mode"] = "disabled"
        execute(start, console, wait=True)
    record = execute(planned, console)
    if before:
        tracker = Tracker(config, record.id, tags_of(planned.overrides))
        for row in record.metrics() if record.metrics_file.exists() else []:
            tracker.log({name: value for name, value in row.items() if name != "step"}, row["step"])
        tracker.finish(record.summary, record.read("tables.json"), config["training"]["steps"])
    return record


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
