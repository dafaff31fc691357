"""Which figures an experiment is shown by. A new experiment adds an entry, or has none and gets a default."""

from collections.abc import Sequence

from experiments.report.builders import (
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
    wins,
)
from experiments.report.figure import CURVES, SEEDS, Figure, language_model
from experiments.report.memory_builders import (
    by_document_position,
    by_length,
    gate_histogram,
    gate_paths,
    protocols,
    stream_gain_by_position,
)
from experiments.report.passkey_figures import PASSKEY_FIGURES
from experiments.report.position_figures import POSITION_FIGURES
from experiments.report.summary_builders import overall_by_length, overall_scores, samples, scores

PRINTED = {  # better / equal / worse of nine models: Ramachandran et al. 2017, table 3
    "relu": "9 / 0 / 0",
    "leaky_relu": "7 / 1 / 1",
    "prelu": "6 / 3 / 0",
    "softplus": "6 / 2 / 1",
    "elu": "8 / 0 / 1",
    "selu": "8 / 1 / 0",
    "gelu": "8 / 1 / 0",
}


FIGURES: dict[str, tuple[Figure, ...]] = {
    **POSITION_FIGURES,
    **PASSKEY_FIGURES,
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
            "Score of equal queries and keys by distance",
            "Look at the distance at which a curve first falls below zero: from there on, what is further away is "
            "pushed down. Mean over the pairs of a head of width 128.",
            drawn("reach", "base", "distance, tokens", "mean of cos(distance · θ)", "base", logarithmic=True),
            "RoPE",
        ),
        Figure(
            "Rotation by elements and by the matrix",
            "Look at whether the two differ by more than float64 rounds.",
            recorded("rotations"),
            "RoPE",
        ),
        Figure(
            "Decoding from a cache",
            "Look at the largest difference between logits from the cache and of the whole sequence, in float64.",
            recorded("caches"),
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
    "memory_lm": (
        *language_model("attention", "attention"),
        Figure(
            "Perplexity against the size of the state",
            "Look for what lies low and to the left: a low perplexity from few floats. The state is counted after one "
            "sequence of the training length; small points are seeds, large ones means.",
            against("state_floats", "nonoverlapping/perplexity", "floats of state", "test perplexity", "attention"),
        ),
    ),
    "perplexity": (
        Figure(
            "Loss by place in the document, streamed",
            "Look at which lines still fall where a document has become longer than the trained length. Every bin is "
            "of the same documents; but what stands further in may be easier or harder by itself. Lines are means over "
            "seeds, bands go from the lowest to the highest.",
            by_document_position("streaming"),
        ),
        Figure(
            "What the carried state saves",
            "Look at which lines lie above zero: there, what was read before the sliding window helped. Of the same "
            "tokens; bands go over the seeds.",
            stream_gain_by_position,
        ),
        Figure(
            "Perplexity by protocol",
            "Look at how far the protocols of one attention lie apart: all score the same tokens, each once.",
            protocols,
        ),
    ),
    "context_cost": (
        Figure(
            "Time per token as a stream grows",
            "Look at which lines stay flat; one that ends early has become too slow to be taken further.",
            by_length("ms_per_token", "ms per token, reading"),
        ),
        Figure(
            "Time to decode a token as a stream grows",
            "Look at what one more token costs after so many.",
            by_length("ms_per_decoded_token", "ms per token, decoding"),
        ),
        Figure(
            "State as a stream grows",
            "Look at which lines are level: that is a memory of bounded size.",
            by_length("state_bytes", "bytes of state"),
        ),
        Figure(
            "Peak memory as a stream grows",
            "Look at what reading one more piece takes beside weights and state.",
            by_length("peak_bytes", "bytes of tensors at a time"),
        ),
    ),
    "gates": (
        Figure(
            "Gates over training",
            "Look at which lines leave a half. 0 is local attention alone, 1 is memory alone; bands go over the seeds.",
            gate_paths,
        ),
        Figure(
            "Gates after training",
            "Look at whether the heads lie in one heap at a half or apart. Over all heads, layers and seeds.",
            gate_histogram,
        ),
        Figure(
            "Digits of the passkey found",
            "Look at the keys at the start, which only the memory can reach: 1 is every digit, 0.1 is chance.",
            retrieval("digits"),
        ),
    ),
    "summarization": (
        Figure(
            "Overall ROUGE by model",
            "Look at which models lie above those that read the beginning alone, and at how near the best sentences "
            "of the document itself come (oracle). Points are seeds, ticks are means, lines 95 % intervals.",
            overall_scores,
        ),
        Figure(
            "Every score",
            "Look along a row; from and to bound the overall score by a bootstrap over the documents, the mean over "
            "the seeds. Seconds are of training and evaluation.",
            scores,
        ),
        Figure(
            "Overall ROUGE by how much is read",
            "Look at which lines rise up to the whole document, and which are level from their window on; bands go "
            "over the seeds.",
            overall_by_length,
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
    "linear_attention": "Positions in linear attention",
    "extrapolation": "Beyond the trained length",
    "context_extension": "Extending the context",
    "masked_lm": "Positions in a masked language model",
    "position_cost": "The cost of positions",
    "memory_lm": "Memories in a language model",
    "perplexity": "Perplexity of whole documents",
    "context_cost": "The cost of a long context",
    "gates": "The gates of Infini-attention",
    "passkey": "Passkey retrieval",
    "passkey_controls": "Passkey retrieval without the memory",
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
