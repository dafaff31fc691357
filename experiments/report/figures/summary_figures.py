"""The figures of summarization."""

from experiments.report.figures.figure import Figure
from experiments.report.figures.summary_builders import overall_by_length, overall_scores, samples, scores

FIGURES = (
    Figure(
        "Overall ROUGE by model",
        "Look at which models are above those that read the beginning alone, and at how near the best sentences "
        "of the document itself are (oracle). Points are seeds, ticks are means, lines 95 % intervals.",
        overall_scores,
    ),
    Figure(
        "Every score",
        "Look along a row; from and to bound the overall score by a bootstrap over the documents, the mean over "
        "the seeds. Seconds are of training and evaluation.",
        scores,
    ),
    Figure(
        "Overall ROUGE by length read",
        "Look at which lines rise up to the whole document, and which are level from their window on; bands show "
        "the range over the seeds.",
        overall_by_length,
    ),
    Figure(
        "Sample outputs",
        "Look at whether an output says what its reference says. Of each model the first finished seed.",
        samples,
    ),
)
SUMMARY_FIGURES: dict[str, tuple[Figure, ...]] = dict.fromkeys(("summarization", "code_summarization"), FIGURES)
