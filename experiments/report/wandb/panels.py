"""From the runs of an experiment to W&B panels, for a section of the workspace and a grid of the report alike.

W&B computes what a panel shows from the uploaded runs; the records decide which panels have something to show.
"""

from collections.abc import Iterable, Sequence

import wandb_workspaces.reports.v2 as wr
from wandb_workspaces.reports.v2.interface import PanelTypes

from experiments.ledger.curves import SMOOTHING
from experiments.report.runs import Run, factors_of, short
from experiments.tracking.wandb_run import CONDITION, FACTORS

MOST_RUNS = 500  # runs or groups in a plot; W&B's default is ten
COLUMNS = 24  # of a report's grid
SEARCH = ("search/best", "search/score")
GATES = ("gates/undecided", "gates/specialised")  # shares of the heads
Grouping = tuple[str, wr.Config | wr.Metric]


def panels(experiment: str, runs: Sequence[Run], metrics: Iterable[str]) -> list[PanelTypes]:
    """The panels of an experiment.

    metrics: those to draw as bars, if they were measured. Curves are means with a band from the lowest to the highest
    run of the group, as on the page; bars are means with a standard deviation.
    """
    groups = groupings(experiment, runs)
    return [
        *curves(runs, groups),
        *bars(runs, groups, metrics),
        *memory(runs),
        *gates(runs),
        *(wr.WeavePanelSummaryTable(table_name=name) for name in tables(runs)),
        *coordinates(experiment, runs, metrics),
        wr.RunComparer(diff_only="split"),
    ]


def level(experiment: str, factor: str) -> wr.Config:
    """The key under which the tracker stores the level of a factor.

    It contains the experiment, so that runs of other experiments, which a workspace cannot keep out of a section, are
    not among its groups.
    """
    return wr.Config(f"{FACTORS}.{experiment}.{factor.rpartition('.')[2]}")


def groupings(experiment: str, runs: Sequence[Run]) -> list[Grouping]:
    """How runs are grouped: by each factor and, if there are several, by all of them; else as a whole experiment."""
    factors = factors_of(runs)
    found: list[Grouping] = [(short(factor), level(experiment, factor)) for factor in factors]
    if len(factors) > 1:
        found.append((", ".join(map(short, factors)), level(experiment, CONDITION)))
    return found or [("experiment", wr.Metric("Group"))]


def curves(runs: Sequence[Run], groups: Sequence[Grouping]) -> list[PanelTypes]:
    """Metrics logged by step: training loss, score of a search, share of the heads that mix or specialise."""
    logged = next((names for names in map(names_logged, runs) if names), set())
    wanted: dict[str, Sequence[str]] = {"training loss": ["train/loss"]} if "train/loss" in logged else {}
    wanted |= {"score of the functions": SEARCH} if "best" in logged else {}
    wanted |= {"shares of the gates": GATES} if logged.issuperset(GATES) else {}
    return [
        wr.LinePlot(
            title=f"{title} by {name}",
            y=list(metrics),
            groupby=key,
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            smoothing_type="exponential" if title == "training loss" else "none",
            smoothing_factor=SMOOTHING if title == "training loss" else 0,
            max_runs_to_show=MOST_RUNS,
        )
        for title, metrics in wanted.items()
        for name, key in groups
    ]


def names_logged(run: Run) -> set[str]:
    """The names of the metrics that a run logged by step."""
    rows = run.record.metrics() if run.record.metrics_file.exists() else []
    return {name for row in rows for name in row}


def bars(runs: Sequence[Run], groups: Sequence[Grouping], metrics: Iterable[str]) -> list[PanelTypes]:
    """Final metrics; those that share a name up to the first slash are in one plot."""
    return [
        wr.BarPlot(
            title=f"{family} by {name}",
            metrics=list(members),
            groupby=key,
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
            max_runs_to_show=MOST_RUNS,
            max_bars_to_show=MOST_RUNS,
        )
        for family, members in families(measured(runs, metrics)).items()
        for name, key in groups
    ]


def measured(runs: Sequence[Run], metrics: Iterable[str]) -> list[str]:
    """The metrics that some run has at its end."""
    return [metric for metric in dict.fromkeys(metrics) if any(run.value(metric) is not None for run in runs)]


def families(metrics: Sequence[str]) -> dict[str, list[str]]:
    """Metrics by their name up to the first slash; a single one by its whole name."""
    found: dict[str, list[str]] = {}
    for metric in metrics:
        found.setdefault(metric.partition("/")[0], []).append(metric)
    return {family if len(members) > 1 else members[0]: members for family, members in found.items()}


def memory(runs: Sequence[Run]) -> list[PanelTypes]:
    """Perplexity against the floats of the state, a point for every run; nothing if all states have one size."""
    names = {name for run in runs for name in run.evaluation()[1] if name.partition("/")[2] == "perplexity"}
    if len({run.value("state_floats") for run in runs}) < 2:
        return []
    return [
        wr.ScatterPlot(
            title=f"{name} against floats of state",
            x=wr.SummaryMetric("state_floats"),
            y=wr.SummaryMetric(name),
            log_x=True,
        )
        for name in sorted(names)
    ]


def gates(runs: Sequence[Run]) -> list[PanelTypes]:
    """The gates of all heads: the tracker's histogram by step and its table of the last ones."""
    if not any("gates/undecided" in run.evaluation()[1] for run in runs):
        return []
    histogram = wr.LinePlot(title="gates of all heads, σ(β)", y=["gates/shares"], max_runs_to_show=MOST_RUNS)
    return [histogram, wr.WeavePanelSummaryTable(table_name="gates")]


def tables(runs: Sequence[Run]) -> list[str]:
    """The names of the tables that have rows: the passkey grid is `retrieval`."""
    return sorted({name for run in runs for name, rows in run.tables.items() if rows})


def coordinates(experiment: str, runs: Sequence[Run], metrics: Iterable[str]) -> list[PanelTypes]:
    """Parallel coordinates of a sweep: its factors, then the final metrics; none for a single factor."""
    factors = factors_of(runs)
    if len(factors) < 2:
        return []
    # A key of the configuration is a number with a scale; a choice is only a name.
    accessors = {name: wr.Config(name) if "." in name else level(experiment, name) for name in factors}
    axes = [wr.ParallelCoordinatesPlotColumn(key, display_name=short(name)) for name, key in accessors.items()]
    axes += [wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(metric)) for metric in measured(runs, metrics)]
    return [wr.ParallelCoordinatesPlot(title=f"{', '.join(map(short, factors))} and final metrics", columns=axes)]


def laid_out(found: Sequence[PanelTypes]) -> list[PanelTypes]:
    """The panels with their positions in a report's grid: three plots in a row, tables as wide as the grid."""
    across = (wr.WeavePanelSummaryTable, wr.RunComparer, wr.ParallelCoordinatesPlot)
    x = y = height = 0
    for panel in found:
        width, tall = (COLUMNS, 10) if isinstance(panel, across) else (COLUMNS // 3, 7)
        if x + width > COLUMNS:
            x, y, height = 0, y + height, 0
        panel.layout = wr.Layout(x=x, y=y, w=width, h=tall)  # type: ignore[union-attr]
        x, height = x + width, max(height, tall)
    return list(found)
