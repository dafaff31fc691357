"""Which figures an experiment is shown by. A new experiment adds an entry, or has none and gets a default."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.report.builders import (
    Builder,
    against,
    drawn,
    final_values,
    gallery,
    grid,
    histogram,
    learning_curves,
    listed,
    prefix_scores,
    recorded,
    retrieval,
    rouge,
    samples,
    wins,
)
from experiments.report.data import LEFT_OUT
from experiments.statistics import SMOOTHING


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


PRINTED = {  # better / equal / worse of nine models: Ramachandran et al. 2017, table 3
    "relu": "9 / 0 / 0",
    "leaky_relu": "7 / 1 / 1",
    "prelu": "6 / 3 / 0",
    "softplus": "6 / 2 / 1",
    "elu": "8 / 0 / 1",
    "selu": "8 / 1 / 0",
    "gelu": "8 / 1 / 0",
}


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
            drawn("curves", "beta", "x", "Swish(x) = x · σ(βx)", "β"),
            "Swish",
        ),
        Figure(
            "All activation functions",
            "Look at which functions have a slope that changes sign, and which are not smooth. Trained parameters are "
            "at their first values.",
            gallery,
            "Swish",
        ),
        Figure(
            "The paper's table 3, made again from its tables 4 to 11",
            "Look at how many columns agree with the first line, for each way to take a model's several results "
            "together: better / equal / worse.",
            recorded("published_counts"),
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
            "Test accuracy by activation and network",
            SEEDS,
            final_values("accuracy", "test accuracy, %", "activation"),
        ),
        Figure(
            "Swish better / equal / worse",
            "Look at how often the first number is the greater one; medians are over the seeds of a network.",
            wins("swish", PRINTED),
        ),
        Figure(
            "Trained β",
            "Look at how far β has spread from 1, where it began. Bins of 0.1 over the channels of all layers, means "
            "over seeds.",
            histogram("beta", "beta", "share"),
        ),
    ),
    "activation_robustness": (
        Figure(
            "Accuracy over learning rates and initial gains",
            "Look at how many cells are near the best one, and where a function gets no further than chance (0.1). "
            "Means over seeds.",
            grid("accuracy", "optimizer.lr", "training.initial_gain", 100),
        ),
    ),
    "activation_search": (
        Figure(
            "The best functions found",
            "Look at their common shape, at β = 1: what is near Swish, what is not. Of the first search.",
            drawn("curves", "function", "x", "value", "function"),
        ),
        Figure(
            "Functions by score",
            "Look at where the functions made by hand would have ranked. The score is accuracy on held-out training "
            "images after the short training; retrained is test accuracy in the larger networks. Of the first search.",
            recorded("found"),
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
    "activation_robustness": "Robustness of activations",
    "activation_search": "The search for activations",
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
