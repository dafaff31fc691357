"""Charts of memories: the cost of a long context, and the gates of Infini-attention."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.report.figures import charts
from experiments.report.figures.builders import Builder, Built
from experiments.report.figures.chart import Table
from experiments.report.runs import Run, mean_and_range, spaced

BINS = 10  # of a histogram of gates, from 0 to 1
IN_THE_DOCUMENT = "position in the document, tokens (end of bin)"


def cost_by_length(value: str, title: str) -> Builder:
    """A column of the recorded table of costs by the tokens read before, both on logarithmic axes."""

    def build(runs: Sequence[Run]) -> Built:
        points = [
            (spaced(run.factors["attention"]), "", float(row["length"]), float(row[value]))
            for run in runs
            for row in run.rows("context_cost", numbers=["length", value])
        ]
        rows = mean_and_range(points)
        return charts.curves(rows, title, "attention", "", "tokens read", True) if points else None

    return build


def loss_by_document_position(protocol: str) -> Builder:
    """The loss of one protocol by the position of a token in its document, in bins that end at twice as many each."""

    def build(runs: Sequence[Run]) -> Built:
        points = [
            (spaced(run.factors["attention"]), "", float(row["position"]), row["loss"])
            for run in runs
            for row in run.rows("by_position", ["protocol"], ["position", "loss"])
            if row["protocol"] == protocol
        ]
        rows = mean_and_range(points)
        title = "test loss, nats per token"
        return charts.curves(rows, title, "attention", "", IN_THE_DOCUMENT, True) if points else None

    return build


def stream_gain_by_position(runs: Sequence[Run]) -> Built:
    """How much lower the loss is with a carried state than with sliding windows, by position in the document."""
    points: list[tuple[str, str, float, float]] = []
    for run in runs:
        rows = run.rows("by_position", ["protocol"], ["position", "loss"])
        losses = {(row["protocol"], row["position"]): row["loss"] for row in rows}
        points += [
            (spaced(run.factors["attention"]), "", float(position), losses["sliding", position] - loss)
            for (protocol, position), loss in losses.items()
            if protocol == "streaming" and ("sliding", position) in losses
        ]
    title = "sliding - streaming, nats per token"
    return charts.curves(mean_and_range(points), title, "attention", "", IN_THE_DOCUMENT, True) if points else None


def protocol_table(runs: Sequence[Run]) -> Built:
    """What every attention is scored on, and its loss, perplexity and bits per byte by every protocol, means over
    seeds."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        for row in run.rows("protocol", ["protocol"]):
            found.setdefault((run.factors["attention"], row["protocol"]), []).append(run)
    rows: list[list[Any]] = []
    for (attention, protocol), having in found.items():
        measures = [f"{protocol}/{measure}" for measure in ("loss", "perplexity", "bits_per_byte")]
        each_run = [[run.value(name) for run in having] for name in ("documents", "leaked_share", *measures)]
        values = [[math.nan if value is None else value for value in row] for row in each_run]
        rows.append([spaced(attention), protocol, len(having), *(sum(each) / len(each) for each in values)])
    scored, scores = ["documents", "left out as leaked"], ["nats per token", "perplexity", "bits per byte"]
    columns = ["attention", "protocol", "n", *scored, *scores]
    return Table(columns, rows) if rows else None


def gates_of(run: Run) -> Iterator[tuple[str, int, float]]:
    """Head, step of the evaluation and gate σ(β) of every gate that a run recorded."""
    for step, metrics in run.evaluations():
        for name, value in metrics.items():
            kind, *parts = name.split("/")
            if kind == "gates" and len(parts) == 2:
                yield spaced(" ".join(parts)), step, value


def gate_paths(runs: Sequence[Run]) -> Built:
    """Every gate by the step of the evaluation, a line for each head and recipe."""
    points = [
        (head, f"{spaced(run.factors['gates'])} recipe", float(step), gate)
        for run in runs
        for head, step, gate in gates_of(run)
    ]
    rows = mean_and_range(points)
    return charts.curves(rows, "gate σ(β): share of memory", "head", "recipe") if points else None


def gate_histogram(runs: Sequence[Run]) -> Built:
    """The share of the gates in every tenth, at the end of training, over heads and seeds, by recipe."""
    found: dict[str, list[int]] = {}
    for run in runs:
        gates = list(gates_of(run))
        last = max((step for _, step, _ in gates), default=0)
        at_end = [min(BINS - 1, int(BINS * gate)) for _, step, gate in gates if step == last]
        found.setdefault(f"{spaced(run.factors['gates'])} recipe", []).extend(at_end)
    rows = [
        {"level": recipe, "x": (bin + 0.5) / BINS, "value": Counter(bins)[bin] / len(bins)}
        for recipe, bins in found.items()
        if bins
        for bin in range(BINS)
    ]
    return charts.lines(rows, "gate σ(β)", "share of the heads", "recipe") if rows else None
