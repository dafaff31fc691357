"""W&B's local folder and logs, and whether its server is reachable."""

import os
import socket
import warnings
from pathlib import Path
from urllib.parse import urlparse

import wandb

from experiments.config.errors import first_line

FOLDERS = ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR")
PATIENCE = 15  # seconds that a finished run waits for its upload; `make sync` uploads the rest


def local_folder(outputs: str | Path) -> Path:
    """Where W&B writes the runs of `outputs`: WANDB_DIR, or `outputs`/wandb."""
    return Path(os.environ.get("WANDB_DIR") or Path(outputs) / "wandb").resolve()


def use_folder(outputs: str) -> str:
    """Make W&B write all its files under its local folder, so that its terminal dashboard finds all runs.

    Returns the folder, for `wandb.init`, which else takes the first that W&B was given in this process. Without
    WANDB_FINISH_TIMEOUT, W&B waits forever if the network is lost; with it, it raises TimeoutError.
    """
    folder = local_folder(outputs)
    folder.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        os.environ.setdefault(name, str(folder))
    os.environ.setdefault("WANDB_FINISH_TIMEOUT", str(PATIENCE))
    os.environ["WANDB_FINISH_TIMEOUT_RAISES"] = "true"
    return str(folder)


def run_files(outputs: str, identifier: str = "*") -> list[Path]:
    """W&B's logs of all runs or of one, by start time. Folders of online runs are named run-…, others offline-run-…"""
    folder = local_folder(outputs) / "wandb"
    return sorted(folder.glob(f"*run-*-{identifier}/run-{identifier}.wandb"), key=start_time)


def start_time(file: Path) -> str:
    """The start time of a log, from its folder's name: [offline-]run-<day>_<time>-<id>."""
    return file.parent.name.removeprefix("offline-").split("-")[1]


def check_reachable(server: str) -> None:
    """Raise OSError if no server accepts a connection within two seconds."""
    address = urlparse(server)
    socket.create_connection((address.hostname, address.port or (80 if address.scheme == "http" else 443)), 2).close()


def unreachable() -> str | None:
    """Why W&B cannot be reached, in one line; None if it can. W&B itself would wait minutes for the network."""
    try:
        wandb.login(timeout=1, verify=False)
        check_reachable(wandb.setup().settings.base_url)
    except (OSError, wandb.errors.Error, ValueError) as error:
        return first_line(error)
    return None


def reachable_mode(mode: str) -> str:
    """`mode`; if it is online and W&B cannot be reached, offline with a warning."""
    reason = unreachable() if mode == "online" else None
    if reason:
        warnings.warn(f"W&B cannot be reached ({reason}): this run is tracked offline", stacklevel=2)
    return "offline" if reason else mode


def in_sweep() -> bool:
    """Whether the agent of a W&B sweep started this process."""
    return wandb.env.SWEEP_ID in os.environ
