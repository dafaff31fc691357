"""ROUGE of summaries against references, by the rouge-score package, with bootstrap intervals over documents."""

import unicodedata
from typing import Any

import numpy as np
import regex

from tasks.base import random_generator

NAMES = ("rouge1", "rouge2", "rougeL")
LSUM = "rougeLsum_by_stops"  # named after the sentence splitter, `sentences`
UNICODE = "rouge_by_unicode_words"
RESAMPLED = 1000  # bootstrap samples
# A word of another script than Latin, or a character of a script without spaces between words, such as Han or Thai.
SINGLE = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Line_Break=SA}]"
BUT = rf"--\p{{Latin}}--\p{{Common}}--{SINGLE}"
OTHER = regex.compile(rf"({SINGLE}\p{{M}}*|[\p{{L}}\p{{Nd}}{BUT}][\p{{L}}\p{{M}}\p{{Nd}}{BUT}]*)", regex.V1)


def sentences(text: str) -> list[str]:
    """The sentences of a text: split after full stops, question and exclamation marks, and at empty lines."""
    pieces = regex.split(r"(?<=[.!?؟۔।])\s+|(?<=[。！？])\s*|\n\s*\n", text)
    return [" ".join(piece.split()) for piece in pieces if piece.strip()]


class Words:
    """rouge-score's tokenizer with stemming, which knows a-z and 0-9 alone, and the words of scripts other than Latin.

    So the words of a text in Latin script are those of rouge-score. In scripts without spaces, each character counts.
    """

    def __init__(self) -> None:
        from rouge_score.tokenizers import DefaultTokenizer  # importing it takes two seconds

        self.latin = DefaultTokenizer(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        """The words of a text, in order."""
        pieces = OTHER.split(text.lower())  # every second piece is a word of another script
        return [
            word
            for index, piece in enumerate(pieces)
            for word in ([unicodedata.normalize("NFC", piece)] if index % 2 else self.latin.tokenize(piece))
        ]


def overall(rouge1: Any, rouge2: Any, rouge_l: Any) -> Any:
    """The papers' overall ROUGE: the geometric mean of the corpus means of ROUGE-1, 2 and L; numbers or arrays."""
    return (rouge1 * rouge2 * rouge_l) ** (1 / 3)


def rouge(summaries: list[str], references: list[str]) -> dict[str, float]:
    """Corpus mean of F1 in percent, with stemming, for ROUGE-1, 2, L and Lsum, and `overall`.

    `<score>/low` and `<score>/high` are the 95 % percentile bootstrap interval over documents (Efron 1979).
    `rouge_by_unicode_words`, if there is one, is the share of references with words of a script other than Latin; on
    all others the scores are those of rouge-score. See Words.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([*NAMES, "rougeLsum"], tokenizer=Words())
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
    others = sum(OTHER.search(reference) is not None for reference in references) / len(references)
    return metrics | ({UNICODE: others} if others else {})
