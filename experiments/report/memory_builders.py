"""Charts that show memories: what a long context costs, and where the gates of Infini-attention went."""

from collections import Counter
from collections.abc import Iterator, Sequence

from experiments.report import charts
from experiments.report.builders import Builder, Built
from experiments.report.data import Run
from experiments.report.position_builders import banded, name_of

BINS = 10  # of a histogram of gates, from 0 to 1


def by_length(value: str, title: str) -> Builder:
    """A column of the recorded table of costs by the tokens read before, both on logarithmic axes."""

    def build(runs: Sequence[Run]) -> Built:
        points = [
            (name_of(run.factors["attention"]), "", float(row["length"]), float(row[value]))
            for run in runs
            for row in run.tables.get("context_cost", ())
        ]
        return charts.curves(banded(points), title, "attention", "", "tokens read", True) if points else None

    return build


def gates_of(run: Run) -> Iterator[tuple[str, int, float]]:
    """Head, step of the evaluation and gate σ(β), for all that a run recorded."""
    for step, metrics in sorted(run.record.summary["evaluations"].items(), key=lambda pair: int(pair[0])):
        for name, value in metrics.items():
            kind, *place = name.split("/")
            if kind == "gates" and len(place) == 2:
                yield " ".join(place).replace("_", " "), int(step), value


def gate_paths(runs: Sequence[Run]) -> Built:
    """Every gate by the step of the evaluation, a line for each head and recipe."""
    points = [
        (head, f"{name_of(run.factors['gates'])} recipe", float(step), gate)
        for run in runs
        for head, step, gate in gates_of(run)
    ]
    return charts.curves(banded(points), "gate σ(β): share of memory", "head", "recipe") if points else None


def gate_histogram(runs: Sequence[Run]) -> Built:
    """The share of the gates in every tenth, at the end of training, over heads and seeds, by recipe."""
    found: dict[str, list[int]] = {}
    for run in runs:
        gates = list(gates_of(run))
        last = max((step for _, step, _ in gates), default=0)
        at_end = [min(BINS - 1, int(BINS * gate)) for _, step, gate in gates if step == last]
        found.setdefault(f"{name_of(run.factors['gates'])} recipe", []).extend(at_end)
    rows = [
        {"level": recipe, "x": (bin + 0.5) / BINS, "value": Counter(bins)[bin] / len(bins)}
        for recipe, bins in found.items()
        if bins
        for bin in range(BINS)
    ]
    return charts.lines(rows, "gate σ(β)", "share of the heads", "recipe") if rows else None
