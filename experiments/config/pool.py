"""Work of planning on all processor cores."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch


def of_all(call: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """What a call returns for each of the items."""
    processes = min(len(items), len(os.sched_getaffinity(0)))
    if processes < 2:
        return [call(item) for item in items]
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)  # all is imported already
    with ProcessPoolExecutor(processes, mp_context=context, initializer=begin) as pool:
        return list(pool.map(call, items))


def begin() -> None:
    """Compute on one thread, for a fork has no others and would wait for them, and leave Ctrl-C to the parent."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
