"""What a run was made with: versions, processor, precision."""

import ctypes
import importlib.metadata
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch

from experiments.records.code import ROOT
from experiments.records.processes import processes, processes_here

LIBRARIES = ("torch", "numpy", "accelerate", "transformers", "tokenizers", "datasets", "wandb", "scikit-learn", "scipy")


@cache
def git_commit() -> str | None:
    """The commit that the code was checked out at, with a + if it was changed since; None outside a checkout."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if status.stdout.strip() else "")


def processor_is_gpu() -> bool:
    """Whether work is done on a GPU."""
    return torch.cuda.is_available()


@cache
def processor() -> str:
    """The name of the GPU or of the processor that work is done on."""
    if processor_is_gpu():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def resolve_precision(precision: str) -> str:
    """bf16 or fp32: the one asked for, or with `auto` bf16 where the processor computes in it.

    ATEN_CPU_CAPABILITY=avx2 hides such instructions, as it does from torch's own kernels.
    """
    if precision != "auto":
        return precision
    if processor_is_gpu():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    instructions = torch.cpu.get_capabilities()
    in_bf16 = instructions.get("avx512_bf16", False) or instructions.get("amx_bf16", False)
    return "bf16" if in_bf16 and torch.backends.cpu.get_cpu_capability().startswith("AVX512") else "fp32"


def use_threads(threads: int | None) -> int:
    """Let torch use so many processor threads, its share of them all if None; returns how many it uses."""
    keep_memory()
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) // processes_here()))
    return torch.get_num_threads()


@cache
def keep_memory() -> None:
    """Have the C library keep memory that tensors free for the next ones instead of giving it back to the system.

    Otherwise every large tensor is new pages, filled with zeros on first touch: a quarter of a training step. The
    values are the largest there are; where the C library is not GNU's, nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-3, 2**30)  # M_MMAP_THRESHOLD: below it memory comes from the heap
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: how much free memory the heap's end may hold


@cache
def versions() -> dict[str, str]:
    """The versions of the libraries that a run may use."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def describe(identity: dict[str, str]) -> dict[str, Any]:
    """The record of a run's environment: what determines its numbers, and all else that may be asked of it."""
    return {
        **identity,
        "git": git_commit(),
        "python": platform.python_version(),
        "libraries": versions(),
        "platform": platform.platform(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "processes": processes(),
    }
