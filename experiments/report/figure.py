"""What a figure on the page is, and the ones that several experiments share."""

from dataclasses import dataclass

from experiments.ledger.statistics import SMOOTHING
from experiments.report.builders import Builder, final_values, learning_curves
from experiments.report.data import LEFT_OUT


@dataclass(frozen=True)
class Figure:
    """A chart or a table, what to look for in it, and in whose section it stands: in every one's if `idea` is empty.

    `build` returns None where the runs hold nothing to show.
    """

    title: str
    look_for: str
    build: Builder
    idea: str = ""


SEEDS = (
    "Look at whether the intervals overlap and how far single seeds lie apart; points are seeds, ticks are means, "
    "and lines their 95 % intervals. The ledger weighs differences paired by seed, which can be known more closely."
)
CURVES = (
    "Look at which line lies lower, and from which step on. Each run is smoothed by an exponential moving average that "
    f"keeps {SMOOTHING:g} of its past; lines are means over seeds, bands go from the lowest seed to the highest, and "
    f"the first {100 * LEFT_OUT:g} % of the steps are left out. A click in the legend picks one line."
)


def language_model(level: str, what: str) -> tuple[Figure, ...]:
    """What every language-modelling experiment shows."""
    loss = "nonoverlapping/loss"
    return (
        Figure(f"Test loss by {what}", SEEDS, final_values(loss, "test loss, nats per token", level)),
        Figure(f"Training loss by {what}", CURVES, learning_curves(level)),
    )
