"""Interleaved timing of calls."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def interleaved(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """The seconds of each call, `repeats` times. The calls are interleaved, so that a slow moment affects all."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - started)
    return times


def against(times: list[float], others: list[float]) -> str:
    """The median ratio of interleaved times, with its range."""
    ratios = sorted(own / other for own, other in zip(times, others))
    return f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
