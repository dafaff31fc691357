"""The processes that torchrun started for a run, and the role of this one."""

import os

import torch
import torch.distributed


def processes() -> int:
    """The number of processes that share a run."""
    return int(os.environ["WORLD_SIZE"]) if "LOCAL_RANK" in os.environ else 1


def processes_here() -> int:
    """The number of them on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if "LOCAL_RANK" in os.environ else 1


def on_processors() -> bool:
    """Whether several processes compute on CPUs, which Accelerate has to be told."""
    return processes() > 1 and not torch.cuda.is_available()


def is_first() -> bool:
    """Whether this process has rank 0; only that one writes."""
    return processes() == 1 or os.environ["RANK"] == "0"
