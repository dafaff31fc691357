"""Rows in, charts out: points with intervals, lines, bars and maps, each as a Vega-Lite specification."""

from typing import Any

import altair as alt

from experiments.report.figures.chart import (
    FEW_PANELS,
    HEIGHT,
    INTERVAL,
    Chart,
    Table,
    finish,
    fitted,
    level_tooltips,
    log_scale,
    log_ticks,
    means_in_words,
    name_of,
    named,
    number_tooltips,
    panelled,
    table_of,
)
from experiments.report.figures.palette import SERIES, dashes, repeats, series, shapes
from experiments.report.numbers import number
from experiments.report.runs import Row, distinct

HEADING = 275  # pixels of a panel's heading, at most
FEW_TICKS = 6  # values that have a tick each
FEW = 20  # steps of a line whose points are drawn too
LINE_HEIGHTS = {12: 26, 24: 18}  # lines of a dot chart up to which each is so many pixels high
LOWEST_LINE = 8


def dots(rows: list[Row], means: list[Row], title: str, level: str, group: str) -> Chart:
    """A line for every level: a point for every seed, the mean and its interval.

    Groups differ by colour, shape and vertical offset.
    """
    points = [row for row in rows if row["value"] is not None]
    levels, groups = distinct(points, "level"), distinct(points, "group")
    grouped = len(groups) > 1
    vertical: dict[str, Any] = {"y": alt.Y("level:N", sort=levels, title=None)}
    colour: dict[str, Any] = {"color": alt.value(SERIES[0])}
    if grouped:
        vertical["yOffset"] = alt.YOffset("group:N", sort=groups)
        colour = {"color": series("group", groups, group)}
    shape: dict[str, Any] = {"shape": shapes("group", groups, group)} if grouped else {}
    axis = alt.X("value:Q", title=title, scale=alt.Scale(zero=False, padding=10), axis=alt.Axis(tickCount=6))
    names, stated = level_tooltips(level, group, grouped), number_tooltips(*INTERVAL)
    one_run = [*names, alt.Tooltip("seed:N", title="seed"), *number_tooltips("value")]
    lines = len(levels) * len(groups)
    line = next((high for most, high in LINE_HEIGHTS.items() if lines <= most), LOWEST_LINE)
    ticks = named("means").mark_tick(thickness=3, size=min(20, line), opacity=1)
    layers = [
        named("points").mark_point(filled=True, size=38, opacity=0.6).encode(
            **vertical, **colour, **shape, x=axis, tooltip=one_run
        ),
        ticks.encode(**vertical, **colour, x="mean:Q", tooltip=[*names, *stated]),
    ]  # fmt: skip
    bounded = [row for row in means if row["low"] is not None]
    if bounded:
        intervals = named("intervals").mark_rule(strokeWidth=2)
        layers.insert(1, intervals.encode(**vertical, **colour, x="low:Q", x2="high:Q", tooltip=[*names, *stated]))
    spec = finish(fitted(alt.layer(*layers), lines * line), points=points, means=means, intervals=bounded)
    heading = ", ".join(filter(None, (level, group)))
    missing = len(rows) - len(points)
    note = f"Runs without a finite value, not drawn: {missing}." if missing else ""
    return Chart(spec, means_in_words(means), table_of(means, heading), note)


def curves(
    rows: list[Row], title: str, level: str, group: str, across: str = "step", logarithmic: bool = False
) -> Chart:
    """A line for every level by step, with the range over the seeds as a band; a click in the legend selects one.

    across: the title of the horizontal axis. logarithmic: both axes, the vertical one only if all values are positive.
    """
    levels, groups = distinct(rows, "level"), distinct(rows, "group")
    grouped = len(groups) > 1
    selected = alt.selection_point(fields=["level"], bind="legend")
    colour = series("level", levels, level, symbolType="stroke")
    dash: dict[str, Any] = {"strokeDash": dashes("group", groups, group)} if grouped else {}
    if not grouped and len(levels) > len(SERIES):
        dash = {"strokeDash": repeats("level", levels, level)}
    positive = all(row["low"] > 0 for row in rows)
    values, ticks = alt.Scale(zero=False), alt.Undefined  # Vega's own
    if logarithmic and positive:
        values, ticks = log_scale(), log_ticks([row[end] for row in rows for end in ("low", "high")])
    x = horizontal("step", rows, across, logarithmic)
    tooltip = [*level_tooltips(level, group, grouped), alt.Tooltip("step:Q", title=across, format=".4~g")]
    tooltip += number_tooltips(*INTERVAL)
    base = named("curves")
    bands = base.mark_area(opacity=0.12).encode(
        x=x,
        y=alt.Y("low:Q", title=title, scale=values, axis=alt.Axis(values=ticks)),
        y2="high:Q",
        color=colour,
        detail="group:N",
        opacity=alt.condition(selected, alt.value(0.14), alt.value(0.0)),
    )
    opacity = alt.condition(selected, alt.value(1.0), alt.value(0.12))
    lines = base.mark_line(strokeWidth=1.8).encode(x=x, y="mean:Q", color=colour, **dash, opacity=opacity)
    targets = base.mark_point(size=60, opacity=0).encode(x=x, y="mean:Q", tooltip=tooltip)
    layers = [bands, lines, targets]
    if len(distinct(rows, "step")) < FEW:
        layers.append(base.mark_point(filled=True, size=36).encode(x=x, y="mean:Q", color=colour, opacity=opacity))
    spec = finish(fitted(alt.layer(*layers).add_params(selected), HEIGHT), curves=rows)
    end = max(row["step"] for row in rows)
    last = [row for row in rows if row["step"] == end]
    return Chart(spec, f"At the last {across} drawn. {means_in_words(last)}")


def horizontal(field: str, rows: list[Row], title: str, logarithmic: bool) -> alt.X:
    """A horizontal axis without a grid. A logarithmic one has a tick at each value if they are few."""
    ticks: Any = alt.Undefined
    if logarithmic:
        values = sorted({row[field] for row in rows if row[field] > 0})
        ticks = values if len(values) <= FEW_TICKS else log_ticks(values)
    axis = alt.Axis(grid=False, values=ticks)
    return alt.X(f"{field}:Q", title=title, axis=axis, scale=log_scale(logarithmic))


def lines(rows: list[Row], x: str, y: str, level: str, logarithmic: bool = False) -> Chart:
    """Lines through points (x, value), one for every level. logarithmic: the horizontal axis."""
    levels = distinct(rows, "level")
    tooltip = [alt.Tooltip("level:N", title=level), *(alt.Tooltip(f"{n}:Q", format=".3~g") for n in ("x", "value"))]
    few = len(rows) < 100  # points in all: then each is drawn
    chart = named("curves").mark_line(strokeWidth=1.8, point=few).encode(
        x=horizontal("x", rows, x, logarithmic),
        y=alt.Y("value:Q", title=y),
        color=series("level", levels, level, symbolType="stroke"),
        tooltip=tooltip,
    )  # fmt: skip
    spec = finish(fitted(chart, HEIGHT), curves=rows)
    lowest = [min((row for row in rows if row["level"] == name), key=lambda row: row["value"]) for name in levels]
    found = "; ".join(f"{level} {row['level']}: {number(row['value'])} at {number(row['x'])}" for row in lowest)
    return Chart(spec, f"Lowest points drawn: {found}.")


def frames(rows: list[Row], x: str, y: str) -> Chart:
    """Lines by `line`, every level in a small frame of its own."""
    levels, kinds = distinct(rows, "level"), distinct(rows, "line")
    chart = (
        named("frames")
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
    spec = panelled(finish(chart, frames=rows), 150)
    return Chart(spec, f"{y} against {x} of {', '.join(levels)}.", broad=len(levels) > FEW_PANELS)


def pairs(rows: list[Row], x: str, level: str) -> Chart:
    """For every level the values of two or more groups on one line, so that a shift between them is visible."""
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
    spec = finish(fitted(alt.layer(links, points), 26 * len(levels)), values=rows)
    # The groups are long sentences: one under the other.
    config = {"legend": {"columns": 1, "direction": "vertical", "labelLimit": 330}}
    found = "; ".join(f"{name_of(row)}: {number(row['value'])}" for row in rows)
    return Chart(spec | {"config": config}, found)


def scatter(rows: list[Row], means: list[Row], x: str, y: str, level: str) -> Chart:
    """Points by two measures, the first on a logarithmic axis, with the names of the levels beside their means."""
    levels = distinct(means, "level")
    colour, shape = series("level", levels, shown=False), shapes("level", levels, shown=False)
    tooltip = [alt.Tooltip("level:N", title=level), alt.Tooltip("x:Q", title=x, format=",")]
    across = alt.X(
        "x:Q",
        title=x,
        scale=alt.Scale(type="log", nice=True, padding=30),
        axis=alt.Axis(format="~s", tickCount=4, grid=False),
    )
    value = alt.Y("value:Q", title=y, scale=alt.Scale(zero=False, padding=14))
    points = named("points").mark_point(filled=True, size=34, opacity=0.45)
    middles = named("means").mark_point(filled=True, size=110, opacity=0.9)
    # Names alternate between above and below, so that two levels at one point can both be read.
    sides = {"above": -13, "below": 16}
    names = [named(side).mark_text(dy=shift, fontSize=12) for side, shift in sides.items()]
    chart = alt.layer(
        points.encode(x=across, y=value, color=colour, shape=shape, tooltip=[*tooltip, "seed:N", "value:Q"]),
        middles.encode(x=across, y="mean:Q", color=colour, shape=shape, tooltip=[*tooltip, "mean:Q"]),
        *(name.encode(x=across, y="mean:Q", text="level:N") for name in names),
    )
    spec = finish(fitted(chart, HEIGHT), points=rows, means=means, above=means[::2], below=means[1::2])
    table = Table([level, x, "n", y], [[row["level"], row["x"], row["n"], row["mean"]] for row in means])
    return Chart(spec, means_in_words(means), table)


def heat(rows: list[Row], x: str, y: str, value: str, highest: float = 1) -> Chart:
    """A map over (x, y) for every level and group, darker where the value, from 0 to `highest`, is greater."""
    depths: list[str] = [name for name in ("start", "middle", "end") if name in distinct(rows, "y")]
    depths += [name for name in distinct(rows, "y") if name not in depths]
    across = sorted(distinct(rows, "x"))
    # Lengths in K and M, powers of two as the papers write them: the digits of a million are wider than a column.
    thousands = "datum.value < 1024 ? datum.label : datum.value < 1048576 ? format(datum.value / 1024, '.3~g') + 'K' : "
    millions = "format(datum.value / 1048576, '.3~g') + 'M'"
    base = alt.Chart().encode(
        x=alt.X("x:O", sort=across, title=x, axis=alt.Axis(labelAngle=0, labelExpr=thousands + millions)),
        y=alt.Y("y:N", sort=depths, title=None, axis=alt.Axis(labelLimit=56)),
    )
    tooltip = [
        alt.Tooltip("x:O", title=x, format=","),
        alt.Tooltip("y:N", title=y),
        alt.Tooltip("mean:Q", title=value),
        "n:Q",
    ]
    opacity = alt.Opacity("mean:Q", scale=alt.Scale(domain=[0, highest], range=[0.05, 0.65], clamp=True), legend=None)
    cells = base.mark_rect(color=SERIES[0], stroke="var(--paper)", strokeWidth=2).encode(
        opacity=opacity, tooltip=tooltip
    )
    texts = base.mark_text(fontSize=11).encode(text=alt.Text("mean:Q", format=".2f" if highest == 1 else ".3~g"))
    panels = [", ".join(filter(None, (row["level"], row["group"]))) for row in rows]
    order = list(dict.fromkeys(panels))
    column = min(56, 252 // len(across))  # all columns together are as wide as a phone's screen
    chart = (
        alt.layer(cells, texts, data=alt.NamedData(name="cells"))
        .properties(width=alt.Step(column), height=alt.Step(26))
        .facet(
            facet=alt.Facet(
                "panel:N", sort=order, title=None, header=alt.Header(labelAnchor="start", labelLimit=HEADING)
            ),
            columns=1,
            spacing=14,
        )
        .resolve_axis(x="independent", y="independent")
    )
    width = 70 + max(column * len(across), min(HEADING, 6 * max(map(len, order))))
    spec = panelled(finish(chart, cells=[row | {"panel": panel} for row, panel in zip(rows, panels)]), width)
    columns = {"level": "level", "group": "evaluation", "x": x, "y": y, "n": "n", "mean": value}
    keys = [key for key in columns if any(row[key] != "" for row in rows)]
    table = Table([columns[key] for key in keys], [[row[key] for key in keys] for row in rows])
    found = "; ".join(f"{name_of(row)}, {row['x']} {row['y']}: {number(row['mean'])}" for row in rows[:24])
    return Chart(spec, found, table, broad=len(order) > FEW_PANELS)


def bars(rows: list[Row], means: list[Row], x: str, level: str) -> Chart:
    """A bar for the mean of every group at every level, with its interval and a point for every seed."""
    levels, groups = distinct(means, "level"), distinct(means, "group")
    vertical: dict[str, Any] = {
        "y": alt.Y("level:N", sort=levels, title=None),
        "yOffset": alt.YOffset("group:N", sort=groups, scale=alt.Scale(paddingInner=0.2)),
    }
    names = [alt.Tooltip("level:N", title=level), alt.Tooltip("group:N", title="of")]
    axis = alt.X("mean:Q", title=x, scale=alt.Scale(domainMin=0))
    layers = [
        named("means").mark_bar(opacity=0.8).encode(
            **vertical, x=axis, color=series("group", groups), tooltip=[*names, *number_tooltips(*INTERVAL)]
        ),
        named("points").mark_point(color="var(--ink)", size=22, strokeWidth=1).encode(
            **vertical, x="value:Q", tooltip=[*names, "seed:N", *number_tooltips("value")]
        ),
    ]  # fmt: skip
    bounded = [row for row in means if row["low"] is not None]
    if bounded:
        rules = named("intervals").mark_rule(color="var(--ink)", strokeWidth=1.5, clip=True)
        layers.insert(1, rules.encode(**vertical, x="low:Q", x2="high:Q"))
    height = 16 * len(levels) * len(groups)
    spec = finish(fitted(alt.layer(*layers), height), points=rows, means=means, intervals=bounded)
    return Chart(spec, means_in_words(means), table_of(means, level))
