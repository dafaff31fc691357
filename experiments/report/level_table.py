"""A table of compared levels: what varies as columns, the mean of each level, and its difference to the best."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments.ledger.intervals import Estimate
from experiments.ledger.levels import Level, Result, levels, varying
from experiments.recording.metrics import is_lower_better, main_metric, meaning
from experiments.report.numbers import NumberFormat, column_format

MOST_ROWS = 40  # that a terminal shows


class LevelTable(NamedTuple):
    """The cells of a table of levels, those that stand out, and the sentence below it."""

    columns: list[str]
    rows: list[list[str]]
    bold: list[tuple[int, int]]
    caption: str


def level_table(results: Sequence[Result], names: Sequence[str] = (), metric: str = "") -> LevelTable:
    """The levels of these factors, or of all that vary, by a metric or by the main one of the runs. The best is bold if
    its difference to the next is decided."""
    config = results[0].record.config
    metric = metric or main_metric(config, results[0].record.summary["metrics"])
    names = list(names) or varying(results)
    found = levels(results, names, metric, is_lower_better(config, metric))
    unit, direction = meaning(metric)
    one, difference = formats(found)
    columns = [*names, "seeds", f"{metric}, {unit}" if unit else metric, "difference to the best"]
    rows = [
        [*level.factors.values(), str(level.estimate.n), with_interval(level.estimate, one), beside(level, difference)]
        for level in found
    ]
    bold = [(0, len(names) + 1)] if len(found) > 1 and found[1].decided else []
    first = direction or ("lower is better" if is_lower_better(config, metric) else "the highest first")
    caption = f"{metric}: {first}. Means over seeds with 95 % intervals; differences are to the best, paired by seed."
    return LevelTable(columns, rows, bold, caption)


def formats(found: Sequence[Level]) -> list[NumberFormat]:
    """The number formats of means and of differences."""
    differences = [level.difference for level in found if level.difference]
    return [
        column_format([each.mean for each in own], [each.high - each.mean for each in own if math.isfinite(each.high)])
        for own in ([level.estimate for level in found], differences)
    ]


def beside(level: Level, form: NumberFormat) -> str:
    """A level's difference to the best, "" of the best itself."""
    return with_interval(level.difference, form) if level.difference else ""


def with_interval(estimate: Estimate, form: NumberFormat) -> str:
    """A mean with its interval, if there is one."""
    if not math.isfinite(estimate.low):
        return form(estimate.mean)
    return f"{form(estimate.mean)} [{form(estimate.low)}, {form(estimate.high)}]"


def for_terminal(table: LevelTable) -> Table:
    """The table for a terminal, cut to its best rows. What is measured is its title, too long for a column."""
    *factors, _, measured, _ = table.columns
    sides: dict[str, Any] = {"title_justify": "left", "caption_justify": "left"}
    found = Table(box=SIMPLE_HEAD, pad_edge=False, title=measured, caption=table.caption, **sides)
    for name in factors:
        found.add_column(name, overflow="fold")
    for name in ("seeds", "mean", "difference"):
        found.add_column(name, justify="right", no_wrap=True)
    for number, row in enumerate(table.rows[:MOST_ROWS]):
        found.add_row(*row, style="bold" if any(place == number for place, _ in table.bold) else None)
    if len(table.rows) > MOST_ROWS:
        found.add_row(f"and {len(table.rows) - MOST_ROWS} more")
    return found
