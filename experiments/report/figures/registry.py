"""The figures and the title of each experiment. One without an entry gets default figures."""

from collections.abc import Sequence

from experiments.report.figures.activation_figures import ACTIVATION_FIGURES
from experiments.report.figures.builders import final_values, learning_curves
from experiments.report.figures.figure import CURVES, SEEDS, Figure
from experiments.report.figures.memory_figures import MEMORY_FIGURES
from experiments.report.figures.passkey_figures import PASSKEY_FIGURES
from experiments.report.figures.position_figures import POSITION_FIGURES
from experiments.report.figures.property_figures import PROPERTY_FIGURES
from experiments.report.figures.summary_figures import SUMMARY_FIGURES
from experiments.report.runs import spaced

FIGURES: dict[str, tuple[Figure, ...]] = {
    **PROPERTY_FIGURES,
    **ACTIVATION_FIGURES,
    **POSITION_FIGURES,
    **MEMORY_FIGURES,
    **PASSKEY_FIGURES,
    **SUMMARY_FIGURES,
}
TITLES = {
    "properties": "Exact properties",
    "activation_images": "Activations in image classification",
    "activation_networks": "Activations in other networks",
    "activation_robustness": "Robustness of activations",
    "gradient_flow": "Gradients in deep networks",
    "activation_search": "The search for activations",
    "feedforward_lm": "Feed-forwards in a language model",
    "positions": "Positions in a language model",
    "position_probes": "A look into trained positions",
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
    "passkey_gaps": "Passkey retrieval, tuned over gaps",
    "passkey_controls": "Passkey retrieval without the memory",
    "code_summarization": "Docstrings of long sources",
    "summarization": "Summaries of generated chronicles",
}


def title(experiment: str) -> str:
    """The title of an experiment on the page."""
    return TITLES.get(experiment, spaced(experiment))


def figures(experiment: str, metrics: Sequence[str]) -> tuple[Figure, ...]:
    """The figures of an experiment; without an entry, last values of the metrics that claims rest on, and curves."""
    if experiment in FIGURES:
        return FIGURES[experiment]
    values = [
        Figure(f"Last value of {metric}", SEEDS, final_values(metric, metric)) for metric in dict.fromkeys(metrics)
    ]
    return (*values, Figure("Training loss", CURVES, learning_curves(title="training loss")))
