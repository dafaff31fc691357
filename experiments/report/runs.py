"""Finished records as the rows that charts and tables are built from."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from experiments.ledger.curves import smooth
from experiments.ledger.evidence import Evidence
from experiments.ledger.intervals import average, mean
from experiments.recording.look import known
from experiments.recording.record import Record
from experiments.report.numbers import is_number
from experiments.sweeps.grid import Job

Row = dict[str, Any]

COUNTS = ("parameters", "tokens", "steps", "seconds", "state_floats")  # numbers of a summary beside its metrics
WARM_UP = 0.2  # the share of the steps, at the start, that learning curves do not show
MOST_POINTS = 100  # of a learning curve


@dataclass(frozen=True)
class Run:
    """A finished run: its job and its record."""

    job: Job
    record: Record

    @cached_property
    def factors(self) -> dict[str, str]:
        return dict(self.job.factors)

    @cached_property
    def tables(self) -> dict[str, list[Row]]:
        return self.record.read("tables.json") or {}

    def rows(self, table: str, texts: Sequence[str] = (), numbers: Sequence[str] = ()) -> list[Row]:
        """The rows of a recorded table that have these columns of texts and numbers."""

        def has_all(row: Row) -> bool:
            return all(isinstance(row.get(name), str) for name in texts) and all(is_number(row.get(x)) for x in numbers)

        return [row for row in self.tables.get(table, ()) if has_all(row)]

    def evaluation(self, which: str = "last") -> tuple[int, Row]:
        """The step and the metrics of the first or the last evaluation."""
        evaluations = self.record.summary["evaluations"]
        step = (min if which == "first" else max)(evaluations, key=int)
        return int(step), evaluations[step]

    def evaluations(self) -> list[tuple[int, Row]]:
        """The step and the metrics of every evaluation, by step."""
        return sorted((int(step), metrics) for step, metrics in self.record.summary["evaluations"].items())

    def value(self, metric: str) -> float | None:
        """A metric of the last evaluation or a number of the summary; None if there is no finite one."""
        value = self.evaluation()[1].get(metric, self.record.summary.get(metric))
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    def label(self, names: Sequence[str]) -> str:
        """The levels of the named factors, separated by commas."""
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
    """The factors of an experiment except the seed."""
    return [name for name in dict.fromkeys(name for run in runs for name in run.factors) if name != "seed"]


def recorded_table(runs: Sequence[Run], name: str, texts: Sequence[str] = (), numbers: Sequence[str] = ()) -> list[Row]:
    """The rows of a table with these columns, from the first run that recorded it; empty if none did."""
    return next((rows for run in runs if (rows := run.rows(name, texts, numbers))), [])


def short(name: str) -> str:
    """The last part of the name of a factor or a metric."""
    return name.replace("/", ".").split(".")[-1].replace("_", " ")


def spaced(level: str) -> str:
    """A level's name with spaces for underscores."""
    return level.replace("_", " ")


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
        effect = mean(values)
        low, high = (bound if math.isfinite(bound) else None for bound in (effect.low, effect.high))
        found.append(dict(zip(keys, cell)) | {"n": effect.n, "mean": effect.mean, "low": low, "high": high})
    return found


def mean_and_range(points: Iterable[tuple[str, str, float, float]]) -> list[Row]:
    """n, mean, least and greatest value of points (level, group, step, value) at every (level, group, step).

    Rows keep the order in which their keys first occur.
    """
    cells: dict[tuple[str, str, float], list[float]] = {}
    for level, group, step, value in points:
        cells.setdefault((level, group, step), []).append(value)
    return [
        {"level": level, "group": group, "step": step, "n": len(values)}
        | {"mean": average(values), "low": min(values), "high": max(values)}
        for (level, group, step), values in cells.items()
    ]


def learning_rows(runs: Sequence[Run], level: Sequence[str], group: Sequence[str] = ()) -> list[Row]:
    """n, mean, least and greatest smoothed training loss over the seeds, by level, group and step."""
    points: list[tuple[str, str, float, float]] = []
    for run in runs:
        shown = [point for point in smoothed(run.record) if point[0] >= WARM_UP * run.record.summary["steps"]]
        points += [(run.label(level), run.label(group), step, loss) for step, loss in thinned(shown, MOST_POINTS)]
    return mean_and_range(points)


def smoothed(record: Record) -> list[tuple[int, float]]:
    """Step and smoothed training loss, without losses that are not finite."""

    def points() -> list[tuple[int, float]]:
        found = [(row["step"], row["train/loss"]) for row in record.metrics() if "train/loss" in row]
        found = [(step, loss) for step, loss in found if math.isfinite(loss)]
        return list(zip((step for step, _ in found), smooth(loss for _, loss in found)))

    return [(step, loss) for step, loss in known(record.folder, "smoothed loss", points)]


def thinned(points: list[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most `most` points at equal distances, including the last one."""
    stride = max(1, math.ceil(len(points) / most))
    return points[::-1][::stride][::-1]
