"""Weights & Biases: every run of ours is a run there."""

import os
import socket
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb

FOLDERS = ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR")
FACTORS, CONDITION = "factors", "condition"  # keys of the configuration there: a run's levels, and all of them in one


def use_folder(outputs: str) -> None:
    """Keep all that W&B writes under `outputs`/wandb, so that sync and its terminal board see every run together."""
    folder = Path(outputs).resolve() / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        os.environ[name] = str(folder)


def reachable_mode(mode: str) -> str:
    """`mode`, or offline with a warning where online cannot work: W&B itself would wait minutes for the network."""
    if mode != "online":
        return mode
    server = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    try:
        wandb.login(key=os.environ.get("WANDB_API_KEY"), anonymous="never", timeout=1, verify=False)
        socket.create_connection((server.hostname, server.port or (80 if server.scheme == "http" else 443)), 2).close()
    except (OSError, wandb.errors.Error, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        warnings.warn(f"W&B is out of reach ({reason}): this run is tracked offline", stacklevel=2)
        return "offline"
    return mode


class Tracker:
    """One W&B run with the record's id, so that a run that is taken up again is the same one there."""

    def __init__(self, config: dict[str, Any], record_id: str, tags: Sequence[str]):
        use_folder(config["outputs"])
        settings = config["tracking"]
        levels = dict(tag.split("=", 1) for tag in tags)
        factors = {config["name"]: levels | {CONDITION: ", ".join(levels.values())}}
        task = str(config["task"].get("_target_", "")).rsplit(".", 1)[-1]
        self.run = wandb.init(
            mode=reachable_mode(settings["mode"]),  # type: ignore[arg-type]
            project=settings["project"],
            entity=settings["entity"],
            id=record_id,
            resume="allow",
            name="-".join([config["name"], *tags, f"seed{config['seed']}"]),
            group=config["name"],
            job_type=task,
            tags=[*tags, config["scale"]],
            config=config | {FACTORS: factors},
            reinit="finish_previous",
        )

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.run.log(metrics, step=step)

    def finish(self, summary: dict[str, Any], tables: dict[str, list[dict[str, Any]]], step: int) -> None:
        """The final metrics as the run's summary, and its tables."""
        for name, rows in tables.items():
            columns: list[str | int] = list(rows[0]) if rows else []
            self.run.log({name: wandb.Table(columns, [list(row.values()) for row in rows])}, step=step)
        self.run.summary.update({key: value for key, value in summary.items() if key != "evaluations"})
        self.run.finish()

    def abandon(self) -> None:
        """Close a run that did not get to its end."""
        self.run.finish(exit_code=1)
