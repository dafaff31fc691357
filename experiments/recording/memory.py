"""Peak memory of this process."""

import contextlib
import ctypes
import resource
import sys
from pathlib import Path

import torch


def reset_peak() -> None:
    """Restart the count of `process_peak`; on Linux, first return freed memory to the system."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
    with contextlib.suppress(OSError):  # not Linux, or no permission
        Path("/proc/self/clear_refs").write_text("5")


def process_peak() -> int:
    """Peak memory of this process in bytes: allocated GPU memory if there is a GPU, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
