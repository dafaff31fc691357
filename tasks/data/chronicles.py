"""Chronicles: generated long documents whose summaries need facts from the whole text."""

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.random import Generator
from pydantic import PositiveInt

from tasks.base import random_generator
from tasks.data.pairs import Pair
from tasks.data.source import DataError, fingerprint, split_of
from tasks.ranges import Generated

# The topic of each chapter: a verb and its possible subjects. No word occurs in two chapters or in the prose.
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
KEY = 8  # most words of a key sentence
SENTENCE = 7  # most words of a sentence of the prose


class Chronicles:
    """Annals of invented towns with one key event per chapter in irrelevant prose; the summary lists all events.

    Each chapter has one key sentence such as "That year there came floods near the river." at a random position. The
    summary is "There grew rye, came floods, ruled Berta, …". The subject of every event is drawn independently, so that
    the start of a document says nothing about the rest.

    documents: number of documents in all splits. chapters: chapters per document, of equal length. length: most words
    of a document of the validation and test splits. shortest: words of the shortest training document; lengths between
    it and `length` are uniform on a logarithmic scale. The documents depend only on these settings. Raises DataError if
    `shortest` is too short for the chapters.
    """

    name = "chronicles"

    def __init__(self, documents: Generated, chapters: PositiveInt, length: PositiveInt, shortest: PositiveInt):
        self.documents, self.chapters, self.length, self.shortest = documents, chapters, length, shortest
        if not 1 <= chapters <= len(FACTS):
            raise DataError(f"data.chapters must be 1 to {len(FACTS)} chapters, not {chapters}")
        least = 3 + KEY * chapters  # the title and the key sentences
        if not least <= shortest <= length:
            raise DataError(
                f"{chapters} chapters take {least} words: data.shortest={shortest} must be at least that, and "
                f"data.length={length} at least data.shortest"
            )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that the documents depend on, without generating them."""
        settings = map(str, (self.documents, self.chapters, self.length, self.shortest))
        return fingerprint([Path(__file__).read_text(), np.__version__, *settings])

    @cached_property
    def all_pairs(self) -> list[Pair]:
        return [self.pair(index) for index in range(self.documents)]

    def pairs(self, split: str) -> list[Pair]:
        """The documents of a split; a document's number decides its split."""
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
    """A chapter of at most `words` words: prose, with the sentence that states the fact at a random position."""
    prose = [
        " ".join(pick(generator, WORDS[kind]) for kind in PROSE).capitalize() + "."
        for _ in range((words - KEY) // SENTENCE)
    ]
    prose.insert(int(generator.integers(len(prose) + 1)), f"That year there {fact} {pick(generator, WORDS['place'])}.")
    return " ".join(prose)


def sentence(facts: list[str]) -> str:
    """The facts as one sentence."""
    return f"There {', '.join(facts)}."


def pick(generator: Generator, choices: list[str]) -> str:
    """A random element of `choices`."""
    return choices[int(generator.integers(len(choices)))]
