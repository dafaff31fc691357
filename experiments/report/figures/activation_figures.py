"""The figures of the experiments on activations."""

from experiments.report.figures.builders import (
    final_values,
    metric_map,
    recorded_histogram,
    recorded_lines,
    recorded_medians,
    table_as_recorded,
    win_counts,
)
from experiments.report.figures.figure import SEEDS, Figure, language_model

PRINTED = {  # better / equal / worse of nine models: Ramachandran et al. 2017, table 3
    "relu": "9 / 0 / 0",
    "leaky_relu": "7 / 1 / 1",
    "prelu": "6 / 3 / 0",
    "softplus": "6 / 2 / 1",
    "elu": "8 / 0 / 1",
    "selu": "8 / 1 / 0",
    "gelu": "8 / 1 / 0",
}

ACTIVATION_FIGURES: dict[str, tuple[Figure, ...]] = {
    "activation_images": (
        Figure(
            "Test accuracy by activation and network",
            SEEDS,
            final_values("accuracy", "test accuracy, %", "activation"),
        ),
        Figure(
            "Swish better / equal / worse",
            "Look at how often the first number is the greatest; medians are over the seeds of a network.",
            win_counts("swish", PRINTED),
        ),
        Figure(
            "Trained β",
            "Look at how far β has spread from its initial value, 1. Bins of 0.1 over the channels of all layers, "
            "means over seeds.",
            recorded_histogram("beta", "beta", "share"),
        ),
    ),
    "activation_robustness": (
        Figure(
            "Accuracy over learning rates and initial gains",
            "Look at how many cells are near the best one, and where a function stays at chance (10 %). Means over "
            "seeds.",
            metric_map("accuracy", "activation", "optimizer.lr", "training.initial_gain", 100),
        ),
    ),
    "activation_search": (
        Figure(
            "The best functions found",
            "Look at what their shapes have in common, at β = 1, and which are near Swish. Of the first search.",
            recorded_lines("curves", "function", "x", "value", "function"),
        ),
        Figure(
            "Functions by score",
            "Look at the rank that the functions made by hand would have. The score is accuracy on held-out training "
            "images after the short training; retrained is test accuracy in the larger networks. Of the first search.",
            table_as_recorded("found"),
        ),
    ),
    "gradient_flow": (
        Figure(
            "Trainings that fail",
            "Look at the depth and the initial gain from which on networks with a function no longer learn to classify "
            "half of the images. Means over seeds and learning rates.",
            metric_map("failed", "activation", "model.depth", "training.initial_gain", 1),
        ),
        Figure(
            "Decades between first and last gradient",
            "Look at where gradients vanish or explode on their way through a network, after training. Means over "
            "seeds and learning rates; 30 stands for gradients that are zero or not finite.",
            metric_map("imbalance", "activation", "model.depth", "training.initial_gain", 30),
        ),
        Figure(
            "Gradients by layer",
            "Look at which lines are level: through them gradients reach the first layer as they left the last. Of the "
            "deepest networks, after training; medians over seeds, learning rates and gains, without gradients that "
            "are zero.",
            recorded_medians("gradients", "activation", "layer", "norm", "model.depth", "norm, decades"),
        ),
    ),
    "feedforward_lm": language_model("activation", "activation and feed-forward"),
}
