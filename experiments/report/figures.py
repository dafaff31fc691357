"""Which figures an experiment is shown by. A new experiment adds an entry, or has none and gets a default."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.report.builders import (
    Builder,
    against,
    final_values,
    learning_curves,
    listed,
    prefix_scores,
    recorded,
    retrieval,
    rouge,
    samples,
    swish_curves,
)
from experiments.report.data import LEFT_OUT, SMOOTHING


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


FIGURES: dict[str, tuple[Figure, ...]] = {
    "properties": (
        Figure(
            "Swish for several β",
            "Look at the dip left of zero, and at how the curve turns from a line into ReLU's shape as β grows.",
            swish_curves,
            "Swish",
        ),
        Figure(
            "Distance of Swish from x/2 and from ReLU",
            "Look at the β from which on the distance to ReLU is the smaller one: mean absolute distance for |x| ≤ 5.",
            recorded("distances"),
            "Swish",
        ),
        Figure(
            "A score before and after a prefix",
            "Look at whether the two marks of a scheme coincide: where they do, the prefix changed nothing here.",
            prefix_scores,
            "RoPE",
        ),
        Figure(
            "Largest change of a score by the prefix",
            "Look at which schemes stay within the rounding of float64, below 1e-12, and which do not.",
            listed("score_change", "scheme", "largest absolute change"),
            "RoPE",
        ),
        Figure(
            "Memory at the paper's sizes",
            "Look at the floats that each mechanism keeps from one segment to the next.",
            recorded("memory"),
            "Infini-attention",
        ),
        Figure(
            "Writing the same segment twice",
            "Look at what the second write adds, as a share of the first: 0 is nothing, 1 is all of it again.",
            recorded("rewrites"),
            "Infini-attention",
        ),
    ),
    "activation_images": (
        Figure(
            "Test accuracy by activation and depth", SEEDS, final_values("accuracy", "test accuracy, %", "activation")
        ),
        Figure(
            "Training loss by activation and depth",
            CURVES,
            learning_curves("activation", "training loss, nats per image"),
        ),
    ),
    "feedforward_lm": language_model("activation", "activation and feed-forward"),
    "positions": language_model("position", "position scheme"),
    "memory_lm": (
        *language_model("attention", "attention"),
        Figure(
            "Perplexity against the size of the state",
            "Look for what lies low and to the left: a low perplexity from few floats. The state is counted after one "
            "sequence of the training length; small points are seeds, large ones means.",
            against("state_floats", "nonoverlapping/perplexity", "floats of state", "test perplexity", "attention"),
        ),
    ),
    "passkey": (
        Figure(
            "Digits of the passkey found",
            "Look down a column for the place of the key and along a row for the length: 1 is every digit, 0.1 is "
            "chance. Means over seeds.",
            retrieval("digits"),
        ),
    ),
    "summarization": (
        Figure(
            "ROUGE beside the baselines",
            "Look at whether a model does better than the first sentence of the document (lead) and than one drawn at "
            "random; small rings are seeds.",
            rouge,
        ),
        Figure(
            "Sample outputs",
            "Look at whether an output says what its reference says; the first seed of each model that is finished.",
            samples,
        ),
    ),
}


TITLES = {
    "properties": "Exact properties",
    "activation_images": "Activations in image classification",
    "feedforward_lm": "Feed-forwards in a language model",
    "positions": "Positions in a language model",
    "memory_lm": "Memories in a language model",
    "passkey": "Passkey retrieval",
    "summarization": "Summaries of long texts",
}


def title(experiment: str) -> str:
    """What an experiment is called on the page."""
    return TITLES.get(experiment, experiment.replace("_", " "))


def figures(experiment: str, metrics: Sequence[str]) -> tuple[Figure, ...]:
    """The figures of an experiment; without an entry, last values of the metrics that claims rest on, and curves."""
    if experiment in FIGURES:
        return FIGURES[experiment]
    values = [
        Figure(f"Last value of {metric}", SEEDS, final_values(metric, metric)) for metric in dict.fromkeys(metrics)
    ]
    return (*values, Figure("Training loss", CURVES, learning_curves(title="training loss")))
