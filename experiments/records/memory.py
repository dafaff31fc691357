"""The memory of this process."""

import contextlib
import ctypes
import resource
import sys
from pathlib import Path

import torch


def forget_peak() -> None:
    """Let `process_peak` count from here on: what earlier work of this process has freed goes back to the system."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
    with contextlib.suppress(OSError):  # the system may not be Linux, or not let us
        Path("/proc/self/clear_refs").write_text("5")


def process_peak() -> int:
    """The most bytes that this process took up at a time: of the GPU's memory, else of the machine's, all told."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
