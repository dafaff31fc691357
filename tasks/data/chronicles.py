"""Chronicles: generated long documents whose summary is spread over the whole text."""

from functools import cached_property

from numpy.random import Generator

from tasks.base import random_generator
from tasks.data.pairs import Pair
from tasks.data.source import DataError, fingerprint, split_of

WORDS = {
    kind: words.split(",")
    for kind, words in {
        "year": "One,Two,Three,Four,Five,Six,Seven,Eight,Nine,Ten,Eleven,Twelve",
        "event": "floods,fires,raids,storms,feasts,famines,plagues,revolts,sieges,harvests,frosts,droughts,quakes,"
        "trials,weddings,duels,thefts,treaties,comets,miracles,strikes,riots,funerals,battles,hailstones,locusts,wolves,"
        "pirates,strangers,markets,games,prayers,eclipses,landslides,rumours,taxes",
        "verb": "struck,reached,changed,emptied",
        "place": "mill,harbour,abbey,bridge,tower,forge,quarry,orchard,tavern,chapel",
        # Of the prose between, no word is an event or a year.
        "person": "The clerk,A baker,Her brother,The widow,A merchant,The cooper,His cousin,The weaver",
        "action": "sold,mended,counted,carried,praised,painted,forgot,washed,weighed,borrowed,wrapped,hid",
        "amount": "some,many,few,old,new,good",
        "goods": "barrels,ropes,candles,apples,letters,coins,blankets,goats,boots,baskets,lanterns,spoons",
        "manner": "before dawn,at noon,after supper,in silence,with care,in haste,once again,for luck",
        "town": "Torvik,Helham,Branby,Ashton,Wickholm,Marstead,Dunmouth,Eskby,Falton,Grenholm",
    }.items()
}
PROSE = ("person", "action", "amount", "goods", "manner")
KEY = 8  # words of a key sentence
SENTENCE = 7  # words of one of the prose, at most


class Chronicles:
    """Annals of invented towns, one key event a year amid irrelevant prose; the summary names all events in order.

    A year has one sentence such as "In Year Three floods struck the mill.", at a random place of its chapter, and the
    summary of the whole is "One …. Two …. Three floods. …". Every event is drawn independently of all else, so that
    whoever reads the first part knows nothing of the rest.

    documents: how many there are in all splits together. years: chapters of each, of equal length. length: words of a
    document of the validation and the test split, at most. shortest: words of the shortest training document; those
    between it and `length` are equally frequent on a logarithmic scale. Made from these settings alone.
    Raises DataError where a document is too short for its years.
    """

    name = "chronicles"

    def __init__(self, documents: int, years: int, length: int, shortest: int, seed: int = 0):
        self.documents, self.years, self.length, self.shortest, self.seed = documents, years, length, shortest, seed
        if not 1 <= years <= len(WORDS["year"]):
            raise DataError(f"a chronicle is of 1 to {len(WORDS['year'])} years, not {years}")
        least = 3 + KEY * years  # the title and the key sentences
        if not least <= shortest <= length:
            raise DataError(f"a chronicle of {years} years takes {least} words: shortest={shortest} length={length}")

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(part for pair in self.all_pairs for part in pair)

    @cached_property
    def all_pairs(self) -> list[Pair]:
        return [self.pair(index) for index in range(self.documents)]

    def pairs(self, split: str) -> list[Pair]:
        """The documents of a split, which a document's number decides."""
        return [pair for pair in self.all_pairs if split_of(pair.name) == split]

    def pair(self, index: int) -> Pair:
        """The document with this number."""
        generator, name = random_generator(self.seed, index), f"chronicle/{index}"
        words = self.length
        if split_of(name) == "train":
            words = round(self.shortest * (self.length / self.shortest) ** generator.random())
        chapters, facts = [], []
        for year in WORDS["year"][: self.years]:
            event, verb, place = (pick(generator, kind) for kind in ("event", "verb", "place"))
            key = f"In Year {year} {event} {verb} the {place}."
            chapters.append(chapter(generator, key, (words - 3) // self.years))
            facts.append(f"{year} {event}.")
        title = f"Annals of {pick(generator, 'town')}."
        return Pair(name, "\n\n".join([title, *chapters]), " ".join(facts))


def chapter(generator: Generator, key: str, words: int) -> str:
    """The key sentence somewhere in prose of at most so many words in all."""
    sentences = (words - len(key.split())) // SENTENCE
    prose = [" ".join(pick(generator, kind) for kind in PROSE) + "." for _ in range(sentences)]
    prose.insert(int(generator.integers(len(prose) + 1)), key)
    return " ".join(prose)


def pick(generator: Generator, kind: str) -> str:
    """A word of a kind."""
    return WORDS[kind][int(generator.integers(len(WORDS[kind])))]
