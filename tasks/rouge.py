"""ROUGE of summaries against references, by the rouge-score package."""

import numpy as np

NAMES = ("rouge1", "rouge2", "rougeL")


def overall(scores: dict[str, float]) -> float:
    """The papers' single figure: the geometric mean of ROUGE-1, ROUGE-2 and ROUGE-L."""
    return float(np.prod([scores[name] for name in NAMES]) ** (1 / len(NAMES)))


def rouge(summaries: list[str], references: list[str]) -> dict[str, float]:
    """Mean F1 over the corpus in percent, stemmed, for ROUGE-1, 2 and L, and their `overall`."""
    from rouge_score.rouge_scorer import RougeScorer  # takes two seconds to import

    scorer = RougeScorer(NAMES, use_stemmer=True)
    rows = [scorer.score(reference, summary) for summary, reference in zip(summaries, references, strict=True)]
    scores = {name: 100 * float(np.mean([row[name].fmeasure for row in rows])) for name in NAMES}
    return scores | {"overall": overall(scores)}
