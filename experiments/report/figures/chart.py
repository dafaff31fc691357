"""What a figure shows: a chart, which is a Vega-Lite specification, or a table; and what all charts share.

A specification names its data sets. Values from records are only ever data in them, never the name of a field, an
expression or an address. Colours are variables of `colours.css`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import altair as alt

from experiments.report.numbers import NumberFormat, column_format, is_number, number
from experiments.report.runs import Row

HEIGHT = 220  # pixels of a chart whose vertical axis is a number
FEW_PANELS = 4  # that fit one column of the page
INTERVAL = ("n", "mean", "low", "high")


@dataclass
class Table:
    """Rows under named columns; cells are numbers or texts.

    interval: the indices of the columns of a mean and of the two ends of its interval, which are written in one format.
    prose: the cells are long texts.
    """

    columns: list[str]
    rows: list[list[Any]]
    interval: tuple[int, int, int] | None = None
    prose: bool = False

    @cached_property
    def formats(self) -> list[NumberFormat]:
        """The number format of every column."""
        found = [column_format(row[index] for row in self.rows) for index in range(len(self.columns))]
        if self.interval:
            ends = [[row[index] for index in self.interval] for row in self.rows]
            half_widths = [(high - low) / 2 for _, low, high in ends if is_number(low) and is_number(high)]
            shared = column_format([value for row in ends for value in row], half_widths)
            found = [shared if index in self.interval else each for index, each in enumerate(found)]
        return found

    def numeric(self, index: int) -> bool:
        """Whether all cells of a column that are not empty hold numbers."""
        return all(is_number(row[index]) for row in self.rows if row[index] is not None)


@dataclass
class Chart:
    """A specification, a description in words for readers who cannot see it, and its numbers as a table.

    broad: it has many panels, for which the page gives it its whole width.
    """

    spec: dict[str, Any]
    description: str
    table: Table | None = None
    note: str = ""
    broad: bool = False


def finish(chart: Any, **datasets: list[Row]) -> dict[str, Any]:
    """The specification of a chart with its data sets; numbers that are not finite are null in them."""
    spec = chart.to_dict(validate=False)  # takes seconds for a page; the tests validate every chart
    spec.pop("$schema", None)
    return spec | {"datasets": {name: [plain(row) for row in rows] for name, rows in datasets.items()}}


def plain(row: Row) -> Row:
    """A row with its numbers rounded to what a chart can show, and null for what JSON cannot hold."""
    return {key: rounded(value) if isinstance(value, float) else value for key, value in row.items()}


def rounded(value: float, digits: int = 5) -> float | None:
    """A number to a few significant digits, an int if it is whole; None if it is not finite."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(value) if value == int(value) else short


def fitted(chart: Any, height: int) -> Any:
    """The chart as wide as its container, axes included; `height` is that of the area between the axes."""
    size = alt.AutoSizeParams(type="fit-x", contains="padding")
    return chart.properties(width="container", height=height, autosize=size)


def panelled(spec: dict[str, Any], width: int) -> dict[str, Any]:
    """A faceted specification that says how wide a panel is, axes included, so that the page can set its columns."""
    return spec | {"usermeta": {"panelWidth": width}}


def named(name: str) -> alt.Chart:
    """A chart of the data set of this name."""
    return alt.Chart(alt.NamedData(name=name))


def log_scale(logarithmic: bool = True) -> Any:
    """A logarithmic scale, or the default one."""
    return alt.Scale(type="log", nice=False) if logarithmic else alt.Undefined


def log_ticks(values: Sequence[float]) -> Any:
    """Ticks of a logarithmic axis of these values: 1, 2 and 5 times the powers of ten, or these alone where the values
    span more than three of them. Vega's own where fewer than three are left."""
    positive = [value for value in values if 0 < value < math.inf] or [1.0]
    low, high = min(positive), max(positive)
    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    steps = (1, 2, 5) if high < 1000 * low else (1,)
    ticks = [step * power for power in powers for step in steps if low <= step * power <= high]
    return ticks if len(ticks) > 2 else alt.Undefined


def level_tooltips(level: str, group: str, grouped: bool) -> list[alt.Tooltip]:
    """Tooltips of the level and, where there are several, the group."""
    return [alt.Tooltip("level:N", title=level)] + ([alt.Tooltip("group:N", title=group)] if grouped else [])


def number_tooltips(*names: str) -> list[alt.Tooltip]:
    """Tooltips of numbers to four significant digits."""
    return [alt.Tooltip(f"{name}:Q", title=name, format=".4~g") for name in names]


def means_in_words(means: Sequence[Row]) -> str:
    """Up to twelve means as one sentence."""
    found = [f"{name_of(row)} {number(row['mean'])}" for row in means[:12]]
    return "Means: " + "; ".join(found) + (" and more." if len(means) > 12 else ".")


def name_of(row: Row) -> str:
    """The level and the group of a row."""
    return ", ".join(row[key] for key in ("level", "group") if row.get(key))


def table_of(means: Sequence[Row], name: str) -> Table:
    """The means with their intervals as a table; `name` is the heading of its first column."""
    rows = [[name_of(row), row["n"], row["mean"], row["low"], row["high"]] for row in means]
    return Table([name, "n", "mean", "95 % interval, from", "to"], rows, interval=(2, 3, 4))
