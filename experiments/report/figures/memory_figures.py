"""The figures of the experiments on memories in a language model."""

from experiments.report.figures.builders import metric_against, retrieval_map
from experiments.report.figures.figure import Figure, language_model
from experiments.report.figures.memory_builders import (
    cost_by_length,
    gate_histogram,
    gate_paths,
    loss_by_document_position,
    protocol_table,
    stream_gain_by_position,
)

MEMORY_FIGURES: dict[str, tuple[Figure, ...]] = {
    "memory_lm": (
        *language_model("attention", "attention"),
        Figure(
            "Perplexity against the size of the state",
            "Look for points low and to the left: a low perplexity from few floats. The state is counted after one "
            "sequence of the training length; small points are seeds, large ones means.",
            metric_against(
                "state_floats", "nonoverlapping/perplexity", "floats of state", "test perplexity", "attention"
            ),
        ),
    ),
    "perplexity": (
        Figure(
            "Loss by position in the document, streamed",
            "Look at which lines still fall where a document is longer than the trained length. Every bin holds the "
            "same documents, but later text may be easier or harder by itself. Lines are means over seeds, bands go "
            "from the lowest to the highest.",
            loss_by_document_position("streaming"),
        ),
        Figure(
            "Gain from the carried state",
            "Look at which lines are above zero: there, text from before the sliding window helped. On the same "
            "tokens; bands show the range over the seeds.",
            stream_gain_by_position,
        ),
        Figure(
            "Perplexity by protocol",
            "Look at how far the protocols of one attention lie apart: all score the same tokens, each once.",
            protocol_table,
        ),
    ),
    "context_cost": (
        Figure(
            "Time per token as a stream grows",
            "Look at which lines stay flat; a line that ends early has become too slow to measure further.",
            cost_by_length("ms_per_token", "ms per token, reading"),
        ),
        Figure(
            "Time to decode a token as a stream grows",
            "Look at how the time of one more token grows with the tokens read before.",
            cost_by_length("ms_per_decoded_token", "ms per token, decoding"),
        ),
        Figure(
            "State as a stream grows",
            "Look at which lines are level: that is a memory of bounded size.",
            cost_by_length("state_bytes", "bytes of state"),
        ),
        Figure(
            "Peak memory as a stream grows",
            "Look at how much reading one more piece needs beyond weights and state.",
            cost_by_length("peak_bytes", "peak bytes of tensors"),
        ),
    ),
    "gates": (
        Figure(
            "Gates over training",
            "Look at which lines leave 0.5. 0 is local attention alone, 1 is memory alone; bands show the range over "
            "the seeds.",
            gate_paths,
        ),
        Figure(
            "Gates after training",
            "Look at whether the heads stay near 0.5 or split. Over all heads, layers and seeds.",
            gate_histogram,
        ),
        Figure(
            "Digits of the passkey found",
            "Look at the keys at the start, which only the memory can reach: 1 is every digit, 0.1 is chance.",
            retrieval_map("digits"),
        ),
    ),
}
