"""Charts that show memories: what a long context costs, and where the gates of Infini-attention went."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.report import charts
from experiments.report.builders import Builder, Built
from experiments.report.charts import Table
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


def by_document_position(protocol: str) -> Builder:
    """The loss of one protocol by the place of a token in its document, in bins that end at twice as many each."""

    def build(runs: Sequence[Run]) -> Built:
        points = [
            (name_of(run.factors["attention"]), "", float(row["position"]), row["loss"])
            for run in runs
            for row in run.tables.get("by_position", ())
            if row["protocol"] == protocol
        ]
        said = "place in the document, below so many tokens"
        return (
            charts.curves(banded(points), "test loss, nats per token", "attention", "", said, True) if points else None
        )

    return build


def stream_gain_by_position(runs: Sequence[Run]) -> Built:
    """What a carried state saves against sliding windows, by the place of a token in its document."""
    points: list[tuple[str, str, float, float]] = []
    for run in runs:
        rows = run.tables.get("by_position", ())
        losses = {(row["protocol"], row["position"]): row["loss"] for row in rows}
        points += [
            (name_of(run.factors["attention"]), "", float(place), losses["sliding", place] - loss)
            for (protocol, place), loss in losses.items()
            if protocol == "streaming"
        ]
    said = "place in the document, below so many tokens"
    title = "sliding - streaming, nats per token"
    return charts.curves(banded(points), title, "attention", "", said, True) if points else None


def protocols(runs: Sequence[Run]) -> Built:
    """Loss, perplexity and bits per byte of every attention by every protocol, means over seeds."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        for row in run.tables.get("protocol", ()):
            found.setdefault((run.factors["attention"], row["protocol"]), []).append(run)
    rows: list[list[Any]] = []
    for (attention, protocol), having in found.items():
        sides = [
            [run.value(f"{protocol}/{measure}") or math.nan for run in having]
            for measure in ("loss", "perplexity", "bits_per_byte")
        ]
        rows.append([name_of(attention), protocol, len(having), *(sum(side) / len(side) for side in sides)])
    columns = ["attention", "protocol", "n", "nats per token", "perplexity", "bits per byte"]
    return Table(columns, rows) if rows else None


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
