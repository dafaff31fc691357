"""Which of several processes this is, as torchrun starts them."""

import os

import torch
import torch.distributed


def processes() -> int:
    """How many processes are at the same runs."""
    return int(os.environ["WORLD_SIZE"]) if "LOCAL_RANK" in os.environ else 1


def processes_here() -> int:
    """How many of them are on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if "LOCAL_RANK" in os.environ else 1


def on_processors() -> bool:
    """Whether they compute on processors, of which Accelerate must be told."""
    return processes() > 1 and not torch.cuda.is_available()


def is_first() -> bool:
    """Whether this is the one that writes."""
    return processes() == 1 or os.environ["RANK"] == "0"
