"""The environment of a run: library versions, processor, precision, threads."""

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

from experiments.recording.code import ROOT
from experiments.recording.processes import processes, processes_here

LIBRARIES = ("torch", "numpy", "accelerate", "transformers", "tokenizers", "datasets", "wandb", "scikit-learn", "scipy")


@cache
def git_commit() -> str | None:
    """The hash of the checked-out commit, followed by + if files have changed since; None outside a git checkout."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if status.stdout.strip() else "")


def processor_is_gpu() -> bool:
    """Whether runs use a GPU."""
    return torch.cuda.is_available()


@cache
def processor() -> str:
    """The name of the GPU, or of the CPU where there is none."""
    if processor_is_gpu():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def resolve_precision(precision: str) -> str:
    """bf16 or fp32. `auto` means bf16 on a processor with AMX, or a GPU with bf16 instructions, else fp32.

    AVX512-BF16 alone is not enough: training took 1.4 times as long in bf16 on an Intel Xeon that has it without AMX.
    ATEN_CPU_CAPABILITY=avx2 hides all of these instructions here, as it does from torch's own kernels.
    """
    if precision != "auto":
        return precision
    if processor_is_gpu():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    in_bf16 = torch.cpu.get_capabilities().get("amx_bf16", False)
    return "bf16" if in_bf16 and torch.backends.cpu.get_cpu_capability().startswith("AVX512") else "fp32"


def use_threads(threads: int | None) -> int:
    """Set the number of torch's CPU threads and return it. None: the available cores, divided among local processes."""
    keep_memory()
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) // processes_here()))
    return torch.get_num_threads()


@cache
def keep_memory() -> None:
    """Make glibc reuse freed memory instead of returning it to the system; does nothing with other C libraries.

    Otherwise every large tensor gets new pages, which the system fills with zeros on first access: this takes a quarter
    of a training step. Both values are the largest possible.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-3, 2**30)  # M_MMAP_THRESHOLD: smaller blocks come from the heap
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: free memory that may stay at the top of the heap


@cache
def versions() -> dict[str, str]:
    """The versions of the main libraries."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def describe(identity: dict[str, str]) -> dict[str, Any]:
    """The contents of environment.json: a run's identity, and details of the machine and software."""
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
