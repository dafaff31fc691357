"""Chronicles: generated long documents whose summary is spread over the whole text."""

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.random import Generator

from tasks.base import random_generator
from tasks.data.pairs import Pair
from tasks.data.source import DataError, fingerprint, split_of

# What each chapter is about: a verb, and what it can be said of. No word belongs to two chapters or to the prose.
FACTS = {
    verb: subjects.split(",")
    for verb, subjects in {
        "grew": "barley,rye,oats,wheat,millet,beans,turnips,cabbages,plums,hops,flax,lentils",
        "came": "floods,frosts,droughts,storms,hail,fog,snow,heat,thunder,gales,locusts,quakes",
        "ruled": "Aldric,Berta,Conrad,Edith,Florian,Gisela,Hubert,Irmgard,Leopold,Matilda,Oswald,Ursula",
        "sold": "salt,wool,silk,copper,amber,wax,furs,spices,glass,tin,ivory,honey",
        "spread": "fever,measles,scurvy,leprosy,palsy,dropsy,gout,pox,cholera,typhus,mumps,rabies",
        "attacked": "wolves,pirates,raiders,bears,knights,rebels,bandits,mercenaries,boars,rats,giants,vandals",
        "rose": "bridges,towers,chapels,mills,walls,taverns,stables,granaries,fountains,statues,docks,gates",
        "left": "monks,weavers,potters,smiths,bakers,tailors,scribes,miners,hunters,brewers,tanners,masons",
        "won": "archers,jugglers,wrestlers,riders,dancers,fencers,poets,singers,sailors,drummers,jesters,runners",
        "vanished": "crowns,relics,scrolls,bells,jewels,swords,flags,keys,seals,maps,rings,shields",
    }.items()
}
WORDS = {
    kind: words.split(",")
    for kind, words in {
        "person": "the clerk,a widow,her brother,some merchant,the cooper,his cousin,the abbot,a stranger",
        "action": "mended,counted,carried,praised,painted,forgot,washed,weighed,borrowed,wrapped,hid,broke",
        "amount": "few,many,old,new,good",
        "goods": "barrels,ropes,candles,apples,letters,coins,blankets,goats,boots,baskets,lanterns,spoons",
        "manner": "before dawn,at noon,after supper,in silence,with care,in haste,once again,for luck",
        "town": "Torvik,Helham,Branby,Ashton,Wickholm,Marstead,Dunmouth,Eskby,Falton,Grenholm",
        "place": "in the north,in the south,near the river,behind the hills,far from home",
    }.items()
}
PROSE = ("person", "action", "amount", "goods", "manner")
KEY = 8  # words of a key sentence, at most
SENTENCE = 7  # words of one of the prose, at most


class Chronicles:
    """Annals of invented towns, one key event a chapter amid irrelevant prose; the summary names all events in order.

    A chapter has one sentence such as "That year there came floods near the river.", at a random place, and the summary
    of the whole is "There grew rye, came floods, ruled Berta, …". Who or what it was is drawn for every chapter
    independently of all else, so that whoever reads the first part knows nothing of the rest.

    documents: how many there are in all splits together. chapters: of each, of equal length. length: words of a
    document of the validation and the test split, at most. shortest: words of the shortest training document; those
    between it and `length` are equally frequent on a logarithmic scale. Made from these settings alone.
    Raises DataError where a document is too short for its chapters.
    """

    name = "chronicles"

    def __init__(self, documents: int, chapters: int, length: int, shortest: int):
        self.documents, self.chapters, self.length, self.shortest = documents, chapters, length, shortest
        if not 1 <= chapters <= len(FACTS):
            raise DataError(f"a chronicle is of 1 to {len(FACTS)} chapters, not {chapters}")
        least = 3 + KEY * chapters  # the title and the key sentences
        if not least <= shortest <= length:
            raise DataError(f"{chapters} chapters take {least} words: data.shortest={shortest} data.length={length}")

    @cached_property
    def fingerprint(self) -> str:
        """Of all that the documents depend on, without making any."""
        settings = map(str, (self.documents, self.chapters, self.length, self.shortest))
        return fingerprint([Path(__file__).read_text(), np.__version__, *settings])

    @cached_property
    def all_pairs(self) -> list[Pair]:
        return [self.pair(index) for index in range(self.documents)]

    def pairs(self, split: str) -> list[Pair]:
        """The documents of a split, which a document's number decides."""
        return [pair for pair in self.all_pairs if split_of(pair.name) == split]

    def pair(self, index: int) -> Pair:
        """The document with this number."""
        generator, name = random_generator(index), f"chronicle/{index}"
        words = self.length
        if split_of(name) == "train":
            words = round(self.shortest * (self.length / self.shortest) ** generator.random())
        facts = [f"{verb} {pick(generator, FACTS[verb])}" for verb in list(FACTS)[: self.chapters]]
        chapters = [chapter(generator, fact, (words - 3) // self.chapters) for fact in facts]
        half = (self.chapters + 1) // 2
        title = f"Annals of {pick(generator, WORDS['town'])}."
        return Pair(name, "\n\n".join([title, *chapters]), " ".join(map(sentence, (facts[:half], facts[half:]))))


def chapter(generator: Generator, fact: str, words: int) -> str:
    """The sentence with the fact, somewhere in prose of at most so many words in all."""
    prose = [
        " ".join(pick(generator, WORDS[kind]) for kind in PROSE).capitalize() + "."
        for _ in range((words - KEY) // SENTENCE)
    ]
    prose.insert(int(generator.integers(len(prose) + 1)), f"That year there {fact} {pick(generator, WORDS['place'])}.")
    return " ".join(prose)


def sentence(facts: list[str]) -> str:
    """Some facts as one sentence."""
    return f"There {', '.join(facts)}."


def pick(generator: Generator, choices: list[str]) -> str:
    """One of the choices."""
    return choices[int(generator.integers(len(choices)))]
