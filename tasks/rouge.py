"""ROUGE of summaries against references, by the rouge-score package, with bootstrap intervals over documents."""

import re
from typing import Any

import numpy as np

from tasks.base import random_generator

NAMES = ("rouge1", "rouge2", "rougeL")
LSUM = "rougeLsum_by_stops"  # named after the sentence splitter, `sentences`
RESAMPLED = 1000  # bootstrap samples


def sentences(text: str) -> list[str]:
    """The sentences of a text: split after full stops, question and exclamation marks, and at empty lines."""
    pieces = re.split(r"(?<=[.!?])\s+|\n\s*\n", text)
    return [" ".join(piece.split()) for piece in pieces if piece.strip()]


def overall(rouge1: Any, rouge2: Any, rouge_l: Any) -> Any:
    """The papers' overall ROUGE: the geometric mean of the corpus means of ROUGE-1, 2 and L; numbers or arrays."""
    return (rouge1 * rouge2 * rouge_l) ** (1 / 3)


def rouge(summaries: list[str], references: list[str]) -> dict[str, float]:
    """Corpus mean of F1 in percent, with stemming, for ROUGE-1, 2, L and Lsum, and `overall`.

    `<score>/low` and `<score>/high` are the 95 % percentile bootstrap interval over documents (Efron 1979).
    """
    from rouge_score.rouge_scorer import RougeScorer  # importing it takes two seconds

    scorer = RougeScorer([*NAMES, "rougeLsum"], use_stemmer=True)
    rows = []
    for summary, reference in zip(summaries, references, strict=True):
        by_line = scorer.score("\n".join(sentences(reference)), "\n".join(sentences(summary)))
        rows.append([100 * by_line[name].fmeasure for name in (*NAMES, "rougeLsum")])
    scores = np.array(rows)  # (documents, measures)
    drawn = random_generator(len(rows)).integers(len(rows), size=(RESAMPLED, len(rows)))
    means, resampled = scores.mean(axis=0), scores[drawn].mean(axis=1).T  # (measures,), (measures, corpora)
    found = dict(zip((*NAMES, LSUM), zip(means, resampled))) | {
        "overall": (overall(*means[:3]), overall(*resampled[:3]))
    }
    metrics: dict[str, float] = {}
    for name, (mean, corpora) in found.items():
        low, high = np.percentile(corpora, [2.5, 97.5])
        metrics |= {name: float(mean), f"{name}/low": float(low), f"{name}/high": float(high)}
    return metrics
