"""The figures of the exact properties, each in the section of one idea."""

from experiments.report.figures.builders import (
    function_gallery,
    metric_table,
    prefix_scores,
    recorded_lines,
    table_as_recorded,
)
from experiments.report.figures.figure import Figure

SWISH = (
    Figure(
        "Swish for several β",
        "Look at the dip left of zero, and at how the curve turns from a line into ReLU's shape as β grows.",
        recorded_lines("curves", "beta", "x", "Swish(x) = x · σ(βx)", "β"),
        "Swish",
    ),
    Figure(
        "All activation functions",
        "Look at which functions have a slope that changes sign, and which are not smooth. Trained parameters have "
        "their initial values.",
        function_gallery,
        "Swish",
    ),
    Figure(
        "The paper's table 3, computed again from its tables 4 to 11",
        "Look at how many columns agree with the first line, for each way to combine a model's several results: "
        "better / equal / worse.",
        table_as_recorded("published_counts"),
        "Swish",
    ),
    Figure(
        "Distance of Swish from x/2 and from ReLU by β",
        "Look at where the curves cross: to the left a line is nearer, to the right ReLU. Mean absolute distance where "
        "x is from -5 to 5.",
        recorded_lines("distances", "from", "β", "mean distance", "from", logarithmic=True),
        "Swish",
    ),
    Figure(
        "Which functions fall",
        "Look at what is not zero: by how much the function falls in all while x rises from -30 to 30.",
        table_as_recorded("falls"),
        "Swish",
    ),
)
ROPE = (
    Figure(
        "A score before and after a prefix",
        "Look at whether the two marks of a scheme coincide: where they do, the prefix changed nothing.",
        prefix_scores,
        "RoPE",
    ),
    Figure(
        "Largest change of a score by the prefix",
        "Look at which schemes stay within the rounding of float64, below 1e-12, and which do not.",
        metric_table("score_change", "scheme", "largest absolute change"),
        "RoPE",
    ),
    Figure(
        "Score of equal queries and keys by distance",
        "Look at the distance at which a curve first falls below zero: beyond it, equal queries and keys lower the "
        "score. Mean over the pairs of a head of width 128.",
        recorded_lines("reach", "base", "distance, tokens", "mean of cos(distance · θ)", "base", logarithmic=True),
        "RoPE",
    ),
    Figure(
        "Rotation by elements and by the matrix",
        "Look at whether the two differ by more than the rounding of float64.",
        table_as_recorded("rotations"),
        "RoPE",
    ),
    Figure(
        "Decoding from a cache",
        "Look at the largest difference between the logits from the cache and those of the whole sequence, in float64.",
        table_as_recorded("caches"),
        "RoPE",
    ),
    Figure(
        "Two tokens three apart at all places",
        "Look at which schemes give them the same score everywhere: largest minus smallest score, in float64.",
        table_as_recorded("three_apart"),
        "RoPE",
    ),
    Figure(
        "Similarity of sinusoidal positions by distance",
        "Look at how it falls: nearby positions are alike. Cosine of two vectors of width 768, mean over all places.",
        recorded_lines("similarities", "positions", "distance, positions", "cosine", "positions", logarithmic=True),
        "RoPE",
    ),
)
INFINI = (
    Figure(
        "Memory at the paper's sizes",
        "Look at how many floats each mechanism carries from one segment to the next.",
        table_as_recorded("memory"),
        "Infini-attention",
    ),
    Figure(
        "Writing the same segment twice",
        "Look at what the second write adds, as a share of the first: 0 is nothing, 1 is all of it again.",
        table_as_recorded("rewrites"),
        "Infini-attention",
    ),
    Figure(
        "Attention at once, by rows and fused",
        "Look at how operations and bytes grow as the length doubles: by 2 is linear, by 4 is quadratic.",
        table_as_recorded("attention"),
        "Infini-attention",
    ),
)
PROPERTY_FIGURES: dict[str, tuple[Figure, ...]] = {"properties": (*SWISH, *ROPE, *INFINI)}
