"""Charts: rows in, Vega-Lite specifications out. Colours are variables of the page's style sheet.

A specification names its data sets; what comes from records is only ever data in them, never a field's name, an
expression or an address.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from experiments.report.data import Row, distinct
from experiments.report.numbers import number
from experiments.report.palette import SERIES, dashes, rounds, series, shapes

HEIGHT = 260  # of a chart whose vertical axis is a number


@dataclass
class Table:
    """Rows under named columns; cells are numbers or texts."""

    columns: list[str]
    rows: list[list[Any]]
    prose: bool = False  # long texts instead of numbers


@dataclass
class Chart:
    """A specification, the same in words for who cannot see it, and the numbers it shows."""

    spec: dict[str, Any]
    description: str
    table: Table | None = None
    note: str = ""


def finish(chart: Any, **datasets: list[Row]) -> dict[str, Any]:
    """The specification of a chart together with its data sets; numbers that do not exist are null in them."""
    spec = chart.to_dict()
    spec.pop("$schema", None)
    return spec | {"datasets": {name: [plain(row) for row in rows] for name, rows in datasets.items()}}


def plain(row: Row) -> Row:
    """A row with its numbers as short as a chart can show them, and without those that JSON has no word for."""
    return {key: rounded(value) if isinstance(value, float) else value for key, value in row.items()}


def rounded(value: float, digits: int = 5) -> float | None:
    """A number to a few significant digits, whole ones whole; None for what is not finite."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(value) if value == int(value) else short


def fitted(chart: Any, height: int) -> Any:
    """The chart as wide as its place, its axes included; the height is that of what lies between the axes."""
    size = alt.AutoSizeParams(type="fit-x", contains="padding")
    return chart.properties(width="container", height=height, autosize=size)


def named(name: str) -> alt.Chart:
    """A chart of the data set of this name."""
    return alt.Chart(alt.NamedData(name=name))


def in_words(means: Sequence[Row]) -> str:
    """The means, at most a dozen of them, as one sentence."""
    said = [f"{name_of(row)} {number(row['mean'])}" for row in means[:12]]
    return "Means: " + "; ".join(said) + (" and more." if len(means) > 12 else ".")


def name_of(row: Row) -> str:
    """What a row is called."""
    return ", ".join(row[key] for key in ("level", "group") if row.get(key))


def table_of(means: Sequence[Row], what: str) -> Table:
    """The means with their intervals as a table."""
    columns = [what, "n", "mean", "95 % interval, from", "to"]
    return Table(columns, [[name_of(row), row["n"], row["mean"], row["low"], row["high"]] for row in means])


def dots(rows: list[Row], means: list[Row], title: str, level: str, group: str) -> Chart:
    """A line for every level: a point for every seed, the mean and its interval; groups by colour, shape and place."""
    drawn = [row for row in rows if row["value"] is not None]
    levels, groups = distinct(drawn, "level"), distinct(drawn, "group")
    grouped = len(groups) > 1
    y = alt.Y("level:N", sort=levels, title=None)
    place: dict[str, Any] = {"y": y}
    mark: dict[str, Any] = {"color": alt.value(SERIES[0])}
    if grouped:
        place["yOffset"] = alt.YOffset("group:N", sort=groups)
        mark = {"color": series("group", groups, group)}
    form: dict[str, Any] = {"shape": shapes("group", groups, group)} if grouped else {}
    axis = alt.X("value:Q", title=title, scale=alt.Scale(zero=False, padding=10), axis=alt.Axis(tickCount=6))
    told = [alt.Tooltip("level:N", title=level)] + ([alt.Tooltip("group:N", title=group)] if grouped else [])
    seed, value = alt.Tooltip("seed:N", title="seed"), alt.Tooltip("value:Q", title="value", format=".4~g")
    stated = [alt.Tooltip(f"{name}:Q", title=name, format=".4~g") for name in ("n", "mean", "low", "high")]
    points = named("points").mark_point(filled=True, size=38, opacity=0.6)
    intervals = named("intervals").mark_rule(strokeWidth=2)
    middles = named("means").mark_tick(thickness=3, size=20, opacity=1)
    layers = [
        points.encode(**place, **mark, **form, x=axis, tooltip=[*told, seed, value]),
        middles.encode(**place, **mark, x="mean:Q", tooltip=[*told, *stated]),
    ]
    known = [row for row in means if row["low"] is not None]
    if known:
        layers.insert(1, intervals.encode(**place, **mark, x="low:Q", x2="high:Q", tooltip=[*told, *stated]))
    height = len(levels) * (26 * len(groups) if grouped else 36)
    spec = finish(fitted(alt.layer(*layers), height), points=drawn, means=means, intervals=known)
    name = ", ".join(filter(None, (level, group)))
    return Chart(spec, in_words(means), table_of(means, name), undrawn(len(rows) - len(drawn)))


def undrawn(count: int) -> str:
    """A note on runs that cannot be drawn, if there are any."""
    return f"Runs without a finite value, not drawn: {count}." if count else ""


def curves(
    rows: list[Row], title: str, level: str, group: str, across: str = "step", logarithmic: bool = False
) -> Chart:
    """A line for every level by step, with the range over the seeds as a band; a click in the legend picks one.

    across: what a step is, where it is none of training. logarithmic: both axes, the vertical one where
    all values are above zero.
    """
    levels, groups = distinct(rows, "level"), distinct(rows, "group")
    grouped = len(groups) > 1
    picked = alt.selection_point(fields=["level"], bind="legend")
    colour = series("level", levels, level, symbolType="stroke")
    dash: dict[str, Any] = {"strokeDash": dashes("group", groups, group)} if grouped else {}
    if not grouped and len(levels) > len(SERIES):
        dash = {"strokeDash": rounds("level", levels, level)}
    steps = alt.Scale(type="log", nice=False) if logarithmic else alt.Undefined
    positive = all(row["low"] > 0 for row in rows)
    values = alt.Scale(type="log", nice=False) if logarithmic and positive else alt.Scale(zero=False)
    x = alt.X("step:Q", title=across, axis=alt.Axis(grid=False), scale=steps)
    told = [alt.Tooltip("level:N", title=level)] + ([alt.Tooltip("group:N", title=group)] if grouped else [])
    told += [alt.Tooltip("step:Q", title=across, format=".4~g")]
    told += [alt.Tooltip(f"{name}:Q", title=name, format=".4~g") for name in ("n", "mean", "low", "high")]
    base = named("curves")
    bands = base.mark_area(opacity=0.12).encode(
        x=x,
        y=alt.Y("low:Q", title=title, scale=values),
        y2="high:Q",
        color=colour,
        detail="group:N",
        opacity=alt.condition(picked, alt.value(0.14), alt.value(0.0)),
    )
    shown = alt.condition(picked, alt.value(1.0), alt.value(0.12))
    lines = base.mark_line(strokeWidth=1.8).encode(x=x, y="mean:Q", color=colour, **dash, opacity=shown)
    targets = base.mark_point(size=60, opacity=0).encode(x=x, y="mean:Q", tooltip=told)
    layers = [bands, lines, targets]
    if len({row["step"] for row in rows}) < 20:  # of a line through few points, the points are seen
        layers.append(base.mark_point(filled=True, size=36).encode(x=x, y="mean:Q", color=colour, opacity=shown))
    spec = finish(fitted(alt.layer(*layers).add_params(picked), HEIGHT), curves=rows)
    end = max(row["step"] for row in rows)
    last = [row for row in rows if row["step"] == end]
    return Chart(spec, f"At the last {across} drawn. {in_words(last)}")


def lines(rows: list[Row], x: str, y: str, level: str, logarithmic: bool = False) -> Chart:
    """Lines through points (x, value), one for every level; x on a logarithmic axis if asked for."""
    levels = distinct(rows, "level")
    told = [
        alt.Tooltip("level:N", title=level),
        alt.Tooltip("x:Q", format=".3~g"),
        alt.Tooltip("value:Q", format=".3~g"),
    ]
    few = len(rows) < 100  # of a line through few points, the points are seen
    chart = named("curves").mark_line(strokeWidth=1.8, point=few).encode(
        x=alt.X(
            "x:Q",
            title=x,
            axis=alt.Axis(grid=False),
            scale=alt.Scale(type="log", nice=False) if logarithmic else alt.Undefined,
        ),
        y=alt.Y("value:Q", title=y),
        color=series("level", levels, level, symbolType="stroke"),
        tooltip=told,
    )  # fmt: skip
    spec = finish(fitted(chart, HEIGHT), curves=rows)
    lowest = [min((row for row in rows if row["level"] == name), key=lambda row: row["value"]) for name in levels]
    said = "; ".join(f"{level} {row['level']}: {number(row['value'])} at {number(row['x'])}" for row in lowest)
    return Chart(spec, f"Lowest points drawn: {said}.")


def frames(rows: list[Row], x: str, y: str) -> Chart:
    """Lines by `line`, every level in a small frame of its own."""
    levels, kinds = distinct(rows, "level"), distinct(rows, "line")
    chart = (
        alt.Chart(alt.NamedData(name="frames"))
        .mark_line(strokeWidth=1.6, clip=True)
        .encode(
            x=alt.X("x:Q", title=None, axis=alt.Axis(grid=False, tickCount=3)),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(domain=[-2, 4]), axis=alt.Axis(tickCount=3)),
            color=series("line", kinds, y, symbolType="stroke"),
            strokeDash=dashes("line", kinds, y),
            tooltip=[alt.Tooltip("level:N", title="function"), "line:N", alt.Tooltip("x:Q"), alt.Tooltip("value:Q")],
        )
        .properties(width=118, height=84)
        .facet(facet=alt.Facet("level:N", sort=levels, title=None), columns=4, spacing=10)
    )
    return Chart(finish(chart, frames=rows), f"{y} against {x} of {', '.join(levels)}.")


def pairs(rows: list[Row], x: str, level: str) -> Chart:
    """For every level the values of two or more groups on one line, so that a shift between them is seen."""
    levels, groups = distinct(rows, "level"), distinct(rows, "group")
    y = alt.Y("level:N", sort=levels, title=None)
    links = named("values").mark_line(color="var(--soft)", strokeWidth=1.5).encode(y=y, x="value:Q", detail="level:N")
    points = named("values").mark_point(size=90, strokeWidth=2).encode(
        y=y,
        x=alt.X("value:Q", title=x, scale=alt.Scale(zero=False, padding=10), axis=alt.Axis(tickCount=6)),
        color=series("group", groups),
        shape=shapes("group", groups),
        tooltip=[alt.Tooltip("level:N", title=level), alt.Tooltip("group:N", title="of"), alt.Tooltip("value:Q")],
    )  # fmt: skip
    spec = finish(fitted(alt.layer(links, points), 32 * len(levels)), values=rows)
    # Two long sentences: one under the other.
    config = {"legend": {"columns": 1, "direction": "vertical", "labelLimit": 330}}
    said = "; ".join(f"{name_of(row)}: {number(row['value'])}" for row in rows)
    return Chart(spec | {"config": config}, said)


def scatter(rows: list[Row], means: list[Row], x: str, y: str, level: str) -> Chart:
    """Points by two measures, the first on a logarithmic axis, with the means of the levels named beside them."""
    levels = distinct(means, "level")
    colour, form = series("level", levels, shown=False), shapes("level", levels, shown=False)
    told = [alt.Tooltip("level:N", title=level), alt.Tooltip("x:Q", title=x, format=",")]
    across = alt.X(
        "x:Q",
        title=x,
        scale=alt.Scale(type="log", nice=True, padding=30),
        axis=alt.Axis(format="~s", tickCount=4, grid=False),
    )
    value = alt.Y("value:Q", title=y, scale=alt.Scale(zero=False, padding=14))
    points = named("points").mark_point(filled=True, size=34, opacity=0.45)
    middles = named("means").mark_point(filled=True, size=110, opacity=0.9)
    # Names alternate between above and below, so that two levels at one place can both be read.
    sides = {"above": -13, "below": 16}
    names = [named(side).mark_text(dy=shift, fontSize=12) for side, shift in sides.items()]
    chart = alt.layer(
        points.encode(x=across, y=value, color=colour, shape=form, tooltip=[*told, "seed:N", "value:Q"]),
        middles.encode(x=across, y="mean:Q", color=colour, shape=form, tooltip=[*told, "mean:Q"]),
        *(name.encode(x=across, y="mean:Q", text="level:N") for name in names),
    )
    spec = finish(fitted(chart, HEIGHT), points=rows, means=means, above=means[::2], below=means[1::2])
    table = Table([level, x, "n", y], [[row["level"], row["x"], row["n"], row["mean"]] for row in means])
    return Chart(spec, in_words(means), table)


def heat(rows: list[Row], x: str, y: str, value: str) -> Chart:
    """A grid of (x, y) for every level and group, darker where the value, from 0 to 1, is greater."""
    depths: list[str] = [name for name in ("start", "middle", "end") if name in distinct(rows, "y")]
    depths += [name for name in distinct(rows, "y") if name not in depths]
    across = sorted(distinct(rows, "x"))
    # Lengths in K and M, as the papers write powers of two: a million's digits are wider than its column.
    thousands = "datum.value < 1024 ? datum.label : datum.value < 1048576 ? format(datum.value / 1024, '.3~g') + 'K' : "
    millions = "format(datum.value / 1048576, '.3~g') + 'M'"
    base = alt.Chart().encode(
        x=alt.X("x:O", sort=across, title=x, axis=alt.Axis(labelAngle=0, labelExpr=thousands + millions)),
        y=alt.Y("y:N", sort=depths, title=None, axis=alt.Axis(labelLimit=56)),
    )
    told = [
        alt.Tooltip("x:O", title=x, format=","),
        alt.Tooltip("y:N", title=y),
        alt.Tooltip("mean:Q", title=value),
        "n:Q",
    ]
    opacity = alt.Opacity("mean:Q", scale=alt.Scale(domain=[0, 1], range=[0.05, 0.65]), legend=None)
    cells = base.mark_rect(color=SERIES[0], stroke="var(--paper)", strokeWidth=2).encode(opacity=opacity, tooltip=told)
    texts = base.mark_text(fontSize=11).encode(text=alt.Text("mean:Q", format=".2f"))
    # One map under the other, as wide as a phone's screen.
    panels = [", ".join(filter(None, (row["level"], row["group"]))) for row in rows]
    order = list(dict.fromkeys(panels))
    header = alt.Header(labelAnchor="start", labelLimit=275)
    chart = (
        alt.layer(cells, texts, data=alt.NamedData(name="cells"))
        .properties(width=alt.Step(min(56, 252 // len(across))), height=alt.Step(26))
        .facet(facet=alt.Facet("panel:N", sort=order, title=None, header=header), columns=1, spacing=14)
        .resolve_axis(x="independent", y="independent")
    )
    columns = ["level", "evaluation", x, y, "n", value]
    table = [[row["level"], row["group"], row["x"], row["y"], row["n"], row["mean"]] for row in rows]
    said = "; ".join(f"{name_of(row)}, {row['x']} {row['y']}: {number(row['mean'])}" for row in rows[:24])
    drawn = [row | {"panel": panel} for row, panel in zip(rows, panels)]
    return Chart(finish(chart, cells=drawn), said, Table(columns, table))


def bars(rows: list[Row], means: list[Row], x: str, level: str) -> Chart:
    """A bar for the mean of every group at every level, with its interval and a point for every seed."""
    levels, groups = distinct(means, "level"), distinct(means, "group")
    place: dict[str, Any] = {
        "y": alt.Y("level:N", sort=levels, title=None),
        "yOffset": alt.YOffset("group:N", sort=groups, scale=alt.Scale(paddingInner=0.2)),
    }
    told = [alt.Tooltip("level:N", title=level), alt.Tooltip("group:N", title="of")]
    stated = [alt.Tooltip(f"{name}:Q", title=name, format=".4~g") for name in ("n", "mean", "low", "high")]
    axis = alt.X("mean:Q", title=x, scale=alt.Scale(domainMin=0))
    layers = [
        named("means").mark_bar(opacity=0.8).encode(
            **place, x=axis, color=series("group", groups), tooltip=[*told, *stated]
        ),
        named("points").mark_point(color="var(--ink)", size=22, strokeWidth=1).encode(
            **place, x="value:Q", tooltip=[*told, "seed:N", alt.Tooltip("value:Q", format=".4~g")]
        ),
    ]  # fmt: skip
    known = [row for row in means if row["low"] is not None]
    if known:
        rules = named("intervals").mark_rule(color="var(--ink)", strokeWidth=1.5, clip=True)
        layers.insert(1, rules.encode(**place, x="low:Q", x2="high:Q"))
    spec = finish(fitted(alt.layer(*layers), 20 * len(levels) * len(groups)), points=rows, means=means, intervals=known)
    return Chart(spec, in_words(means), table_of(means, level))
