"""Extractive baselines: summaries made of a document's own sentences."""

import re
from collections import Counter

import numpy as np

from tasks.rouge import sentences


def extracts(documents: list[str], references: list[str], seed: int) -> dict[str, list[str]]:
    """Extractive summaries of each document, by baseline.

    lead: the first k sentences, where k is the mean number of sentences of a reference. random: k random sentences, in
    order. oracle: the sentences that a greedy search for the highest ROUGE against the reference picks.
    """
    generator = np.random.default_rng(seed)
    k = max(1, round(float(np.mean([len(sentences(reference)) for reference in references]))))
    found: dict[str, list[str]] = {"lead": [], "random": [], "oracle": []}
    for document, reference in zip(documents, references, strict=True):
        split = sentences(document)
        drawn = sorted(generator.permutation(len(split))[:k])
        found["lead"].append("\n".join(split[:k]))
        found["random"].append("\n".join(split[index] for index in drawn))
        found["oracle"].append("\n".join(split[index] for index in oracle(split, reference)))
    return found


def oracle(split: list[str], reference: str) -> list[int]:
    """The indices of the sentences that a greedy search picks (Nallapati et al. 2017).

    It adds the sentence that increases the mean F1 of unigrams and bigrams most, until no sentence increases it.
    """
    wanted = [ngrams(reference, n) for n in (1, 2)]
    offered = [[ngrams(sentence, n) for n in (1, 2)] for sentence in split]
    promising = [index for index, counts in enumerate(offered) if counts[0] & wanted[0]]
    chosen: list[int] = []
    taken, best = [Counter[tuple[str, ...]]() for _ in wanted], 0.0
    while True:
        scored = [
            (sum(map(f1, (a + b for a, b in zip(taken, offered[index])), wanted)), -index)
            for index in promising
            if index not in chosen
        ]
        score, negative = max(scored, default=(0.0, 0))
        if score <= best:
            return sorted(chosen)
        best = score
        chosen.append(-negative)
        taken = [a + b for a, b in zip(taken, offered[-negative])]


def ngrams(text: str, n: int) -> Counter[tuple[str, ...]]:
    """The counts of the n-grams of lower-case words."""
    words = re.findall(r"\w+", text.lower())
    return Counter(zip(*(words[start:] for start in range(n))))


def f1(found: Counter[tuple[str, ...]], wanted: Counter[tuple[str, ...]]) -> float:
    """The F1 score of two n-gram counts."""
    return 2 * (found & wanted).total() / max(1, found.total() + wanted.total())
