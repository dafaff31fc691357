"""How charts look: colours, which are variables of `colours.css`, shapes and dashes."""

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import altair as alt

COLOURS = Path(__file__).resolve().parent / "colours.css"
SERIES = [f"var(--series-{index})" for index in range(1, 9)]
SHAPES = ["circle", "square", "triangle-up", "cross", "triangle-down", "triangle-right", "triangle-left", "wedge"]
DASHES: list[list[float]] = [[1, 0], [5, 3], [1.5, 2.5], [8, 3, 1.5, 3]]

CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "padding": {"left": 2, "top": 4, "right": 16, "bottom": 4},
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--soft)", "titleColor": "var(--soft)", "gridColor": "var(--line)", "domain": False,
        "tickColor": "var(--line)", "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal",
        "labelLimit": 150, "labelPadding": 6, "labelFlush": False, "labelOverlap": True, "labelSeparation": 8,
    },
    "axisDiscrete": {"labelColor": "var(--ink)", "ticks": False, "grid": False},
    "legend": {
        "labelColor": "var(--ink)", "titleColor": "var(--soft)", "labelFontSize": 12, "titleFontSize": 12,
        "titleFontWeight": "normal", "orient": "top", "direction": "horizontal", "labelLimit": 150,
        "symbolStrokeWidth": 2, "symbolOpacity": 1, "layout": {"top": {"direction": "vertical", "anchor": "start"}},
    },
    "header": {"labelColor": "var(--ink)", "labelFontSize": 12},
    "text": {"color": "var(--ink)"},
    "rule": {"color": "var(--soft)"},
}  # fmt: skip


@cache
def theme(dark: bool = False) -> dict[str, str]:
    """The colour of every variable, in the light or in the dark theme."""
    blocks = re.findall(r":root {(.*?)}", COLOURS.read_text(encoding="utf-8"), flags=re.DOTALL)
    return dict(re.findall(r"(--[\w-]+): (#\w+);", blocks[dark]))


def concrete(specification: dict[str, Any]) -> dict[str, Any]:
    """A specification, or a part of one, with the light theme's colours in place of variables."""
    return json.loads(
        re.sub(r"var\((--[\w-]+)\)", lambda variable: theme().get(variable[1], variable[0]), json.dumps(specification))
    )


def legend(levels: Sequence[str], title: str, **options: Any) -> alt.Legend:
    """A legend with as many columns as fit a narrow screen."""
    longest = max(map(len, levels), default=1)
    return alt.Legend(title=title or None, columns=max(1, min(5, 280 // (7 * min(longest, 20) + 26))), **options)


def series(field: str, levels: Sequence[str], title: str = "", shown: bool = True, **options: Any) -> alt.Color:
    """A colour for every level."""
    colours = [SERIES[index % len(SERIES)] for index in range(len(levels))]
    scale = alt.Scale(domain=levels, range=colours)
    key = legend(levels, title, **options) if shown else None
    return alt.Color(f"{field}:N", sort=levels, scale=scale, legend=key)


def shapes(field: str, levels: Sequence[str], title: str = "", shown: bool = True) -> alt.Shape:
    """A shape for every level, in the legend of its colour."""
    forms: list[str] = [SHAPES[index % len(SHAPES)] for index in range(len(levels))]
    scale = alt.Scale(domain=levels, range=forms)
    return alt.Shape(f"{field}:N", sort=levels, scale=scale, legend=legend(levels, title) if shown else None)


def dashes(field: str, levels: Sequence[str], title: str = "") -> alt.StrokeDash:
    """A dash for every level."""
    chosen = [DASHES[index % len(DASHES)] for index in range(len(levels))]
    key = legend(levels, title, symbolType="stroke", symbolStrokeColor="var(--ink)")
    return alt.StrokeDash(f"{field}:N", sort=levels, scale=alt.Scale(domain=levels, range=chosen), legend=key)


def repeats(field: str, levels: Sequence[str], title: str) -> alt.StrokeDash:
    """Another dash each time the colours repeat, so that levels of one colour differ; in the legend of the colour."""
    chosen = [DASHES[index // len(SERIES) % len(DASHES)] for index in range(len(levels))]
    key = legend(levels, title, symbolType="stroke")
    return alt.StrokeDash(f"{field}:N", sort=levels, scale=alt.Scale(domain=levels, range=chosen), legend=key)
