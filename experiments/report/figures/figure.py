"""What a figure is, and the figures that several experiments share."""

from dataclasses import dataclass

from experiments.ledger.curves import SMOOTHING
from experiments.report.figures.builders import Builder, final_values, learning_curves
from experiments.report.runs import WARM_UP


@dataclass(frozen=True)
class Figure:
    """A chart or a table, what to look for in it, and the idea in whose section it is shown: in all if empty.

    `build` returns None if the runs hold nothing to show.
    """

    title: str
    look_for: str
    build: Builder
    idea: str = ""


SEEDS = (
    "Look at whether the intervals overlap and how far single seeds lie apart; points are seeds, ticks are means, "
    "and lines their 95 % intervals. The ledger compares pairs of one seed, which is more precise."
)
CURVES = (
    "Look at which line is lower, and from which step on. Each run is smoothed by an exponential moving average (past "
    f"weighted by {SMOOTHING:g}); lines are means over seeds, bands go from the lowest to the highest seed, and the "
    f"first {100 * WARM_UP:g} % of the steps are not shown. A click in the legend selects one line."
)


def language_model(level: str, what: str) -> tuple[Figure, ...]:
    """The figures of every language-modelling experiment."""
    loss = "nonoverlapping/loss"
    return (
        Figure(f"Test loss by {what}", SEEDS, final_values(loss, "test loss, nats per token", level)),
        Figure(f"Training loss by {what}", CURVES, learning_curves(level)),
    )
