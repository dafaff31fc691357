"""Finished records as the rows that charts and tables are made of."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from experiments.ledger.evidence import Evidence
from experiments.ledger.statistics import estimate, smooth
from experiments.records.record import Record
from experiments.sweeps.grid import Job

Row = dict[str, Any]

COUNTS = ("parameters", "tokens", "steps", "seconds", "state_floats")  # numbers of a summary beside its metrics
LEFT_OUT = 0.2  # the share of the steps, at the start, that learning curves leave out
DRAWN = 100  # points of a learning curve, at most


@dataclass(frozen=True)
class Run:
    """A finished run: its levels and what it recorded."""

    job: Job
    record: Record

    @cached_property
    def factors(self) -> dict[str, str]:
        return dict(self.job.factors)

    @cached_property
    def tables(self) -> dict[str, list[Row]]:
        return self.record.read("tables.json") or {}

    def evaluation(self, which: str = "last") -> tuple[int, Row]:
        """The step and the metrics of the first or the last evaluation."""
        evaluations = self.record.summary["evaluations"]
        step = (min if which == "first" else max)(evaluations, key=int)
        return int(step), evaluations[step]

    def value(self, metric: str) -> float | None:
        """A metric of the last evaluation or a number of the summary; None if there is no finite one."""
        value = self.evaluation()[1].get(metric, self.record.summary.get(metric))
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    def label(self, names: Sequence[str]) -> str:
        """The levels of the named factors, with commas between."""
        return ", ".join(self.factors[name] for name in names if name in self.factors)


def finished_runs(evidence: Evidence) -> dict[str, list[Run]]:
    """The finished runs of every experiment, in the order of the evidence."""
    found: dict[str, list[Run]] = {}
    for job, record in evidence.items():
        runs = found.setdefault(job.experiment, [])
        if record.finished:
            runs.append(Run(job, record))
    return found


def factors_of(runs: Iterable[Run]) -> list[str]:
    """The factors of an experiment but the seed."""
    return [name for name in dict.fromkeys(name for run in runs for name in run.factors) if name != "seed"]


def short(name: str) -> str:
    """The last part of a factor's or a metric's name."""
    return name.replace("/", ".").split(".")[-1].replace("_", " ")


def distinct(rows: Iterable[Row], key: str) -> list[str]:
    """The values under a key, each once, in their order."""
    return list(dict.fromkeys(row[key] for row in rows))


def final_rows(runs: Sequence[Run], metric: str, level: Sequence[str], group: Sequence[str] = ()) -> list[Row]:
    """A row for every run: its level, its group, its seed and its last value of the metric, None if not finite."""
    return [
        {"level": run.label(level), "group": run.label(group), "seed": run.job.seed, "value": run.value(metric)}
        for run in runs
    ]


def summarize(rows: Iterable[Row], keys: Sequence[str]) -> list[Row]:
    """n, mean and 95 % interval (None where n is below 2) of the finite values, for every combination of the keys."""
    cells: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        if row["value"] is not None and math.isfinite(row["value"]):
            cells.setdefault(tuple(row[key] for key in keys), []).append(row["value"])
    found = []
    for cell, values in cells.items():
        effect = estimate(values)
        low, high = (bound if math.isfinite(bound) else None for bound in (effect.low, effect.high))
        found.append(dict(zip(keys, cell)) | {"n": effect.n, "mean": effect.mean, "low": low, "high": high})
    return found


def learning_rows(runs: Sequence[Run], level: Sequence[str], group: Sequence[str] = ()) -> list[Row]:
    """Mean, least and greatest smoothed training loss over the seeds, by level, group and step."""
    cells: dict[tuple[str, str, int], list[float]] = {}
    for run in runs:
        points = [point for point in smoothed(run.record) if point[0] >= LEFT_OUT * run.record.summary["steps"]]
        for step, loss in thinned(points, DRAWN):
            cells.setdefault((run.label(level), run.label(group), step), []).append(loss)
    return [
        {"level": at[0], "group": at[1], "step": at[2], "n": len(losses)}
        | {"mean": math.fsum(losses) / len(losses), "low": min(losses), "high": max(losses)}
        for at, losses in cells.items()
    ]


def smoothed(record: Record) -> list[tuple[int, float]]:
    """Step and smoothed training loss, of the finite ones."""
    logged = record.metrics() if record.metrics_file.exists() else []
    points = [(row["step"], row["train/loss"]) for row in logged if "train/loss" in row]
    points = [(step, loss) for step, loss in points if math.isfinite(loss)]
    return list(zip((step for step, _ in points), smooth(loss for _, loss in points)))


def thinned(points: list[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most so many points, evenly chosen, the last one among them."""
    stride = max(1, math.ceil(len(points) / most))
    return points[::-1][::stride][::-1]
