"""Summaries made of a document's own sentences: what a model's summaries are to be compared with."""

import re
from collections import Counter

import numpy as np

from tasks.rouge import sentences


def extracts(documents: list[str], references: list[str], seed: int) -> dict[str, list[str]]:
    """The baselines' summaries of each document.

    lead: its first k sentences, with k the sentences of the average reference; random: k of all, in their order;
    oracle: those that together have the highest ROUGE against its own reference, found one by one.
    """
    generator = np.random.default_rng(seed)
    k = max(1, round(float(np.mean([len(sentences(reference)) for reference in references]))))
    found: dict[str, list[str]] = {"lead": [], "random": [], "oracle": []}
    for document, reference in zip(documents, references, strict=True):
        split = sentences(document)
        drawn = sorted(generator.permutation(len(split))[:k])
        found["lead"].append("\n".join(split[:k]))
        found["random"].append("\n".join(split[place] for place in drawn))
        found["oracle"].append("\n".join(split[place] for place in oracle(split, reference)))
    return found


def oracle(split: list[str], reference: str) -> list[int]:
    """The places of the sentences that a greedy search picks (Nallapati et al. 2017): the one that adds most to the
    mean F1 of single words and pairs of words, until none adds any."""
    wanted = [ngrams(reference, n) for n in (1, 2)]
    offered = [[ngrams(sentence, n) for n in (1, 2)] for sentence in split]
    promising = [place for place, counts in enumerate(offered) if counts[0] & wanted[0]]
    chosen: list[int] = []
    taken, best = [Counter[tuple[str, ...]]() for _ in wanted], 0.0
    while True:
        scored = [
            (sum(map(f1, (a + b for a, b in zip(taken, offered[place])), wanted)), -place)
            for place in promising
            if place not in chosen
        ]
        score, place = max(scored, default=(0.0, 0))
        if score <= best:
            return sorted(chosen)
        best = score
        chosen.append(-place)
        taken = [a + b for a, b in zip(taken, offered[-place])]


def ngrams(text: str, n: int) -> Counter[tuple[str, ...]]:
    """How often each n words follow each other; words in lower case."""
    words = re.findall(r"\w+", text.lower())
    return Counter(zip(*(words[start:] for start in range(n))))


def f1(found: Counter[tuple[str, ...]], wanted: Counter[tuple[str, ...]]) -> float:
    """The harmonic mean of the shares of both that they have in common."""
    return 2 * (found & wanted).total() / max(1, found.total() + wanted.total())
