"""Builders: from the runs of an experiment to a chart or a table. They name a metric and a factor, no experiment."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

from experiments.report.figures import charts
from experiments.report.figures.chart import Chart, Table
from experiments.report.numbers import is_number
from experiments.report.runs import (
    Row,
    Run,
    factors_of,
    final_rows,
    learning_rows,
    recorded_table,
    short,
    spaced,
    summarize,
)

Built = Chart | Table | None
Builder = Callable[[Sequence[Run]], Built]


def split_factors(runs: Sequence[Run], level: str) -> tuple[list[str], list[str]]:
    """The factor that gives the lines, by default the first one, and all others."""
    names = factors_of(runs)
    first = level if level in names else (names[0] if names else "")
    return [first], [name for name in names if name != first]


def final_values(metric: str, title: str, level: str = "") -> Builder:
    """The last value of a metric by level: a point for every seed, the mean and its interval."""

    def build(runs: Sequence[Run]) -> Built:
        first, rest = split_factors(runs, level)
        rows = final_rows(runs, metric, first, rest)
        means = summarize(rows, ["level", "group"])
        return charts.dots(rows, means, title, short(first[0]), ", ".join(map(short, rest))) if means else None

    return build


def learning_curves(level: str = "", title: str = "training loss, nats per token") -> Builder:
    """The smoothed training loss by step and level."""

    def build(runs: Sequence[Run]) -> Built:
        first, rest = split_factors(runs, level)
        rows = learning_rows(runs, first, rest)
        return charts.curves(rows, title, short(first[0]), ", ".join(map(short, rest))) if rows else None

    return build


def metric_against(x: str, metric: str, x_title: str, title: str, level: str) -> Builder:
    """One number of a run against another one, `x`, on a logarithmic axis."""

    def build(runs: Sequence[Run]) -> Built:
        rows = [row | {"x": run.value(x)} for run, row in zip(runs, final_rows(runs, metric, [level]))]
        rows = [row for row in rows if row["x"] and row["value"] is not None]  # a logarithmic axis has no zero
        means = summarize(rows, ["level", "x"])
        return charts.scatter(rows, means, x_title, title, level) if means else None

    return build


def retrieval_map(prefix: str) -> Builder:
    """The metrics named prefix/<length>/<depth> of the first and of the last evaluation, as maps.

    Of the last evaluation also those with the memory off.
    """

    def build(runs: Sequence[Run]) -> Built:
        rows: list[Row] = []
        for run in runs:
            first, last = run.evaluation("first"), run.evaluation("last")
            before = [("before tuning", first)] if first[0] != last[0] else []
            for stage, (step, metrics) in [*before, ("after tuning", last)]:
                for name, value in metrics.items():
                    kind, *parts = name.split("/")
                    off = kind == "memory_off" and step == last[0]
                    if (kind == prefix or off) and len(parts) == 2 and parts[0].isdigit():
                        group = f"{stage}{', memory off' if off else ''} (step {step:,})"
                        cell = {"x": int(parts[0]), "y": parts[1], "group": group}
                        rows.append(cell | {"level": run.label(factors_of(runs)), "value": value})
        return retrieval_chart(rows, f"share of {prefix}")

    return build


def retrieval_chart(rows: Sequence[Row], value: str) -> Built:
    """Maps of a share by prompt length and position of the key; rows of level, group, x, y and value."""
    cells = summarize(rows, ["level", "group", "x", "y"])
    return charts.heat(cells, "prompt length, tokens", "position of the key", value) if cells else None


def table_as_recorded(name: str) -> Builder:
    """A table of the first run that recorded it; bytes in megabytes."""

    def build(runs: Sequence[Run]) -> Built:
        rows = recorded_table(runs, name)
        if not rows:
            return None
        # JSON with sorted keys has lost the order of the columns: names of rows go first.
        keys = sorted(rows[0], key=lambda key: isinstance(rows[0][key], int | float))
        columns = [heading(key) for key in keys]
        return Table(columns, [[megabytes(key, row.get(key)) for key in keys] for row in rows])

    return build


def heading(key: str) -> str:
    """The heading of a recorded column."""
    return spaced(f"{key.removesuffix('_bytes')}, MB" if key.endswith("_bytes") else key)


def megabytes(key: str, value: Any) -> Any:
    """A cell of a recorded column: bytes in megabytes, anything else as it is."""
    return value / 1e6 if key.endswith("_bytes") and is_number(value) else value


def metric_table(prefix: str, name: str, value: str) -> Builder:
    """The metrics named prefix/<something> as a table, the smallest first."""

    def build(runs: Sequence[Run]) -> Built:
        found: dict[str, float] = {}
        for run in runs:
            metrics = run.evaluation()[1].items()
            found |= {key.split("/", 1)[1]: number for key, number in metrics if key.startswith(f"{prefix}/")}
        rows = [[spaced(key), number] for key, number in sorted(found.items(), key=lambda pair: pair[1])]
        return Table([name, value], rows) if rows else None

    return build


def recorded_lines(table: str, level: str, x: str, y: str, title: str, logarithmic: bool = False) -> Builder:
    """A recorded table of points (x, value) as lines, one for every value of `level`."""

    def build(runs: Sequence[Run]) -> Built:
        rows = recorded_table(runs, table, [level], ["x", "value"])
        rows = [{"level": row[level], "x": row["x"], "value": row["value"]} for row in rows]
        return charts.lines(rows, x, y, title, logarithmic) if rows else None

    return build


def recorded_medians(table: str, level: str, x: str, y: str, largest: str, title: str) -> Builder:
    """The median of a recorded column's decimal logarithm by x and level, over the runs with the largest factor."""

    def build(runs: Sequence[Run]) -> Built:
        most = max((float(run.factors[largest]) for run in runs), default=0.0)
        found: dict[tuple[str, float], list[float]] = {}
        for run in runs:
            for row in run.tables.get(table, []) if float(run.factors[largest]) == most else []:
                if row[y] and math.isfinite(row[y]) and row[y] > 0:
                    found.setdefault((run.factors[level], row[x]), []).append(math.log10(row[y]))
        rows = [{"level": name, "x": at, "value": median(values)} for (name, at), values in sorted(found.items())]
        return charts.lines(rows, x, title, level) if rows else None

    return build


def function_gallery(runs: Sequence[Run]) -> Built:
    """Every function with its slope, each in a frame of its own."""
    rows = recorded_table(runs, "functions", ["level", "line"], ["x", "value"])
    return charts.frames(rows, "x", "value and slope") if rows else None


def recorded_histogram(table: str, x: str, y: str) -> Builder:
    """A recorded histogram, the mean over the runs of every network."""

    def build(runs: Sequence[Run]) -> Built:
        found: dict[tuple[str, float], list[float]] = {}
        having = [run for run in runs if run.rows(table, numbers=[x, y])]
        networks = Counter(run.factors.get("model", "") for run in having)
        for run in having:
            for row in run.rows(table, numbers=[x, y]):
                found.setdefault((run.factors.get("model", ""), row[x]), []).append(row[y])
        rows = [
            {"level": spaced(level), "x": center, "value": sum(values) / networks[level]}
            for (level, center), values in sorted(found.items())
        ]
        return charts.lines(rows, x, f"{y} of the channels", "network") if rows else None

    return build


def metric_map(metric: str, level: str, x: str, y: str, highest: float) -> Builder:
    """The mean of a metric over two factors, a map for every level of another; `highest` has the full colour."""

    def build(runs: Sequence[Run]) -> Built:
        rows = [
            {
                "level": spaced(run.factors[level]),
                "group": "",
                "x": float(run.factors[x]),
                "y": f"{short(y).split()[-1]} {run.factors[y]}",
                "value": run.value(metric) or 0.0,
            }
            for run in runs
        ]
        cells = summarize(rows, ["level", "group", "x", "y"])
        return charts.heat(cells, short(x), short(y), metric, highest) if cells else None

    return build


def win_counts(treatment: str, baselines: dict[str, str]) -> Builder:
    """How often one activation is better than, equal to and worse than others: by median of a network, and by pair.

    baselines: the counts that the paper prints for each of them.
    """

    def build(runs: Sequence[Run]) -> Built:
        scores: dict[str, dict[tuple[str, int], float]] = {}
        for run in runs:
            network = (run.factors.get("model", ""), run.job.seed)
            scores.setdefault(run.factors["activation"], {})[network] = run.value("accuracy") or 0.0
        rows: list[list[str]] = []
        for baseline, printed in baselines.items():
            own, other = scores.get(treatment, {}), scores.get(baseline, {})
            shared = sorted(own.keys() & other.keys())
            networks = {network for network, _ in shared}
            medians = [
                [median(side[pair] for pair in shared if pair[0] == network) for side in (own, other)]
                for network in networks
            ]
            if shared:
                pairs = [[own[pair], other[pair]] for pair in shared]
                rows.append([spaced(baseline), printed, tally(medians), tally(pairs)])
        columns = ["against", "paper, 9 models", "here, medians by network", "here, pairs of runs"]
        return Table(columns, rows) if rows else None

    return build


def tally(pairs: Iterable[Sequence[float]]) -> str:
    """better / equal / worse."""
    signs = Counter((ours > theirs) - (ours < theirs) for ours, theirs in pairs)
    return f"{signs[1]} / {signs[0]} / {signs[-1]}"


def prefix_scores(runs: Sequence[Run]) -> Built:
    """The score of one pair of words, in the sentence alone and after a prefix, under every scheme."""
    rows = [
        {"level": spaced(row["scheme"]), "group": key, "value": value}
        for run in runs
        for row in run.rows("scores", ["scheme"])
        for key, value in row.items()
        if is_number(value)
    ]
    return charts.pairs(rows, "score of a query with a key", "scheme") if rows else None
