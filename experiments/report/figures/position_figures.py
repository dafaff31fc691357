"""The figures of the experiments on positions."""

from experiments.report.figures.builders import final_values, learning_curves, recorded_lines, table_as_recorded
from experiments.report.figures.figure import CURVES, SEEDS, Figure, language_model
from experiments.report.figures.position_builders import (
    beyond_the_trained_length,
    by_evaluation,
    loss_by_window_position,
    passkeys_by_length,
    speed,
)

POSITION_FIGURES: dict[str, tuple[Figure, ...]] = {
    "positions": language_model("position", "position scheme"),
    "linear_attention": language_model("position", "position scheme, linear attention"),
    "extrapolation": (
        Figure(
            "Perplexity beyond the trained length",
            "Look at which lines stay flat, and whether they lie in the paper's order (dashed). Windows do not "
            "overlap; learned positions have one point only, since they allow no more.",
            beyond_the_trained_length("nonoverlapping", beside_the_paper=True),
        ),
        Figure(
            "The same with sliding windows",
            "Look at whether a gain at length is still there when every token has at least half a window of context.",
            beyond_the_trained_length("sliding", beside_the_paper=False),
        ),
        Figure(
            "Loss by position in the window",
            "Look at where a line turns up: the trained length is a sixteenth of the longest window.",
            loss_by_window_position,
        ),
    ),
    "context_extension": (
        Figure(
            "Loss at the extended length, by step of fine-tuning",
            "Look at how much is lost at step 0, and which scaling ends lowest. At the greatest extension.",
            by_evaluation("extended/loss", "test loss, nats per token"),
        ),
        Figure(
            "Digits of passkeys found beyond the trained length",
            "Look at which scaling finds keys further back than any it was trained on; chance is 0.1. At the greatest "
            "extension.",
            by_evaluation("digits_beyond", "share of digits"),
        ),
        Figure(
            "Passkeys by length of the prompt",
            "Look at how far back a key at the start of the prompt is still found after fine-tuning; the shortest "
            "prompts are as long as those trained on. At the greatest extension.",
            passkeys_by_length,
        ),
    ),
    "masked_lm": (
        Figure(
            "Test loss of hidden tokens by position scheme",
            SEEDS,
            final_values("masked/loss", "test loss, nats per hidden token", "position"),
        ),
        Figure("Training loss by position scheme", CURVES, learning_curves("position")),
    ),
    "position_probes": (
        Figure(
            "Similarity of trained positions by distance",
            "Look at how alike nearby positions are: the cosine of two position vectors, the mean over all places. Of "
            "the first run that adds vectors.",
            recorded_lines("similarities", "positions", "distance, positions", "cosine", "positions", logarithmic=True),
        ),
        Figure(
            "Change of a moved passage's loss",
            SEEDS,
            final_values("moved/change", "mean change, nats per token", "position"),
        ),
        Figure(
            "Loss without half of the rotated pairs",
            "Look at which half of the pairs the model needs rotated, and which at all. Of the first run with RoPE.",
            table_as_recorded("bands"),
        ),
    ),
    "position_cost": (
        *(
            Figure(
                f"Speed of {work} by position scheme",
                "Look at which bars are shorter than that of sinusoidal, at the greatest length; rings are processes.",
                speed(work),
            )
            for work in ("training", "evaluation", "decoding")
        ),
        Figure(
            "Speed and memory of every scheme and length",
            "Look at how speed and memory, relative to sinusoidal, change with the length. Of the first run.",
            table_as_recorded("costs"),
        ),
        Figure(
            "The rotation by its matrix",
            "Look at how many times slower and larger it is than the element-wise one. Of the first run.",
            table_as_recorded("rotations"),
        ),
    ),
}
