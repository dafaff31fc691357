"""The data of the page's comparison of runs: learning curves, configurations and last metrics, in compact form.

What many runs share is written once: texts and series of steps are numbered, and a configuration is stored as its
differences from the most frequent one of its experiment.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import altair as alt

from experiments.ledger.evidence import Evidence
from experiments.ledger.intervals import ALPHA, student
from experiments.recording.look import known
from experiments.recording.metrics import main_metric, meaning
from experiments.recording.record import INCIDENTAL, Record
from experiments.report.figures.chart import HEIGHT, finish, fitted, named, rounded
from experiments.report.figures.palette import DASHES, SERIES
from experiments.report.runs import COUNTS, finished_runs, smoothed, thinned

MOST_POINTS = 60  # of a curve
SINGLE_HEADS = ("gates/layer_",)  # metrics that are too many to compare


class Numbered:
    """Distinct values with the number of each."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def __call__(self, value: Any) -> int:
        return self.numbers.setdefault(value, len(self.numbers))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.numbers)


def comparable_runs(evidence: Evidence) -> dict[str, Any]:
    """The finished runs, by experiment.

    An experiment has `base`, pairs of key and value; `metrics`, their names, the main one first; and `runs`. A run has
    its id; `factors`, names and levels, alternating; `diverged`, if it did; `set`, the keys and values that differ from
    the base, alternating, with the value -1 for a missing key; `values` of the metrics; `steps`, the number of its
    series of steps, -1 if it has none; and the smoothed training `loss` at these steps. Keys, texts and series of steps
    are indices into `texts` and `steps`.
    """
    texts, series = Numbered(), Numbered()
    experiments: list[dict[str, Any]] = []
    for name, runs in finished_runs(evidence).items():
        configurations = [known(run.record.folder, "settings", partial(settings, run.record)) for run in runs]
        results = [last_values(run.record) for run in runs]
        base = most_frequent(configurations)
        metrics = list(dict.fromkeys(metric for values in results for metric in values))
        first = main_metric(runs[0].record.config, metrics) if runs else ""
        metrics.sort(key=lambda metric: metric != first)
        rows = []
        for run, configuration, values in zip(runs, configurations, results):
            steps, loss = curve(run.record)
            changed = {
                key: configuration.get(key) for key in base | configuration if configuration.get(key) != base.get(key)
            }
            numbers = [(texts(key), -1 if value is None else texts(value)) for key, value in changed.items()]
            row = {
                "id": run.record.id,
                "factors": [texts(text) for pair in run.job.factors for text in pair],
                "set": [number for pair in numbers for number in pair],
                "values": [values.get(metric) for metric in metrics],
                "steps": series(steps) if steps else -1,
                "loss": loss,
            }
            rows.append(row | {"diverged": True} if run.record.diverged else row)
        pairs = [(texts(key), texts(value)) for key, value in base.items()]
        experiments.append({"name": name, "base": pairs, "metrics": metrics, "runs": rows})
    return {"experiments": experiments, "texts": list(texts), "steps": [list(steps) for steps in series]}


def settings(record: Record) -> dict[str, str]:
    """The configuration and the environment of a run, flat: `attention.update` to `delta`."""
    config = {key: value for key, value in record.config.items() if key not in INCIDENTAL}
    return dict(flat(config)) | dict(flat(record.environment, "environment."))


def flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested mappings by their path; values that are not strings are written as JSON."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def most_frequent(configurations: Iterable[dict[str, str]]) -> dict[str, str]:
    """The most frequent value of every key."""
    counts = Counter(pair for configuration in configurations for pair in configuration.items())
    return dict(pair for pair, _ in reversed(counts.most_common()))


def last_values(record: Record) -> dict[str, float | str | None]:
    """The metrics of the last evaluation and the counts of the summary; numbers that are not finite as text."""
    summary = record.summary
    values = summary["metrics"] | {name: summary[name] for name in COUNTS if name in summary}
    return {
        name: rounded(value) if math.isfinite(value) else str(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not name.startswith(SINGLE_HEADS)
    }


def curve(record: Record) -> tuple[tuple[int, ...], list[float | None]]:
    """Steps and smoothed training loss."""
    points = thinned(smoothed(record), MOST_POINTS)
    return tuple(step for step, _ in points), [rounded(loss, 4) for _, loss in points]


def level_statistics(compared: Mapping[str, Any]) -> dict[str, Any]:
    """What the page's table of levels needs besides the runs: the half width of Student's interval in standard errors,
    by the number of seeds, and the direction of every metric that has one."""
    metrics = {metric for experiment in compared["experiments"] for metric in experiment["metrics"]}
    most = max([2, *(len(experiment["runs"]) for experiment in compared["experiments"])])
    return {
        "students": [None, None, *(rounded(student(n, ALPHA)) for n in range(2, most + 1))],
        "goals": {metric: own for metric in sorted(metrics) if (own := meaning(metric).direction)},
    }


def level_chart() -> dict[str, Any]:
    """The chart of levels: points of level, step, mean, low and high, in a data set `curves`."""
    colour = alt.Color("level:N", sort=None, scale=alt.Scale(range=SERIES), legend=alt.Legend(title=None, columns=1))
    x = alt.X("step:Q", axis=alt.Axis(grid=False))
    base = named("curves")
    y = alt.Y("low:Q", title="training loss", scale=alt.Scale(zero=False))
    bands = base.mark_area(opacity=0.14).encode(x=x, y=y, y2="high:Q", color=colour)
    tooltip = [alt.Tooltip("level:N"), alt.Tooltip("step:Q", format=","), alt.Tooltip("mean:Q", format=".4~g")]
    lines = base.mark_line(strokeWidth=1.8).encode(x=x, y="mean:Q", color=colour)
    targets = base.mark_point(size=60, opacity=0).encode(x=x, y="mean:Q", tooltip=tooltip)
    return finish(fitted(alt.layer(bands, lines, targets), HEIGHT))


def comparison_chart() -> dict[str, Any]:
    """The chart of the selected learning curves: points of run, step and value, in a data set `curves`."""
    legend = alt.Legend(title=None, columns=1, symbolType="stroke")
    x = alt.X("step:Q", axis=alt.Axis(grid=False))
    y = alt.Y("value:Q", title="training loss", scale=alt.Scale(zero=False))
    colour = alt.Color("run:N", sort=None, scale=alt.Scale(range=SERIES), legend=legend)
    dash = alt.StrokeDash("run:N", sort=None, scale=alt.Scale(range=DASHES), legend=legend)
    tooltip = [alt.Tooltip("run:N"), alt.Tooltip("step:Q", format=","), alt.Tooltip("value:Q", format=".4~g")]
    lines = named("curves").mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour, strokeDash=dash)
    targets = named("curves").mark_point(size=60, opacity=0).encode(x=x, y=y, tooltip=tooltip)
    return finish(fitted(alt.layer(lines, targets), HEIGHT))
