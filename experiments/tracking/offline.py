"""W&B's folder on this machine: its logs, and whether its server can be reached."""

import json
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from urllib.parse import urlparse

import wandb

from experiments.config.errors import first_line

FOLDERS = ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR")
PATIENCE = 15  # seconds that a run waits at its end for its upload; `make sync` sends what is missing


def use_folder(outputs: str) -> None:
    """Keep all that W&B writes under `outputs`/wandb, so that sync and its terminal board see every run together.

    W&B itself would wait for a lost network without end: at WANDB_FINISH_TIMEOUT it gives up and raises TimeoutError.
    """
    folder = Path(outputs).resolve() / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        os.environ[name] = str(folder)
    os.environ.setdefault("WANDB_FINISH_TIMEOUT", str(PATIENCE))
    os.environ["WANDB_FINISH_TIMEOUT_RAISES"] = "true"


def run_files(outputs: str, identifier: str = "*") -> list[Path]:
    """W&B's logs of all runs or of one, in the order they were begun; online ones are in folders named run-…"""
    folder = Path(outputs).resolve() / "wandb" / "wandb"
    return sorted(folder.glob(f"*run-*-{identifier}/run-{identifier}.wandb"), key=begun)


def begun(file: Path) -> str:
    """The time at which a log was begun, as in its folder's name: <offline->run-<day>_<time>-<id>."""
    return file.parent.name.removeprefix("offline-").split("-")[1]


def marker(log: Path) -> Path:
    """The file by which W&B knows that a log has been uploaded."""
    return log.with_suffix(".wandb.synced")


def check_reachable(server: str) -> None:
    """Raise OSError if nobody listens there within two seconds."""
    address = urlparse(server)
    socket.create_connection((address.hostname, address.port or (80 if address.scheme == "http" else 443)), 2).close()


def out_of_reach() -> str | None:
    """Why nothing can be uploaded, in one line; None if it can. W&B itself would wait minutes for the network."""
    try:
        wandb.login(timeout=1, verify=False)
        check_reachable(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    except (OSError, wandb.errors.Error, ValueError) as error:
        return first_line(error)
    return None


def reachable_mode(mode: str) -> str:
    """`mode`, or offline with a warning where online cannot work."""
    reason = out_of_reach() if mode == "online" else None
    if reason:
        warnings.warn(f"W&B is out of reach ({reason}): this run is tracked offline", stacklevel=2)
    return "offline" if reason else mode


def steps(log: Path) -> list[int]:
    """The steps that a log holds rows of. That of a run that was killed ends early: W&B writes 32 KiB at a time."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return [int(json.loads(line)["history"]["step"]["num"]) for line in lines if '"type":"history"' in line]


def last_step(outputs: str, identifier: str) -> int:
    """The last step of a run that W&B's logs on this machine hold, -1 if none does."""
    return max((step for log in run_files(outputs, identifier) for step in steps(log)), default=-1)


def in_sweep() -> bool:
    """Whether an agent of W&B's own sweeps has begun this process."""
    return wandb.env.SWEEP_ID in os.environ
