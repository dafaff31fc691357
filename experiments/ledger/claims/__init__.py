"""The claims: data, one YAML file each."""

from dataclasses import field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

FOLDER = Path(__file__).resolve().parent
STRICT = ConfigDict(extra="forbid")
Idea = Literal["Swish", "RoPE", "Infini-attention"]
IDEAS = get_args(Idea)
Levels = dict[str, str | int | float]


@dataclass(config=STRICT)
class Comparison:
    """One measured effect and what is claimed of it.

    rule: difference (treatment - control), ratio (treatment / control) and sign (the share of the pairs in which the
    treatment is the greater), paired by all factors that neither side fixes; equivalence (the difference lies within
    `tolerance` of the threshold, on either side); level (the treatment alone); exact (the treatment alone, within
    `tolerance` of the threshold).
    pool: how the runs that differ only in the factors `over` become one number: area, the share of them within
    `tolerance` of the best one of both sides; rank, Spearman's correlation with the paper's `figures` by level; steps,
    how many a run takes to the loss at which the worse of its pair ends, by the smoothed curves of the metric.
    side: on which side of the threshold the effect is claimed to lie. evaluation: the first or the last one of a run.
    decides: whether the claim's verdict rests on it, or it is only shown beside.
    """

    label: str
    experiment: str
    metric: str
    rule: Literal["difference", "equivalence", "ratio", "sign", "level", "exact"]
    threshold: float
    treatment: Levels = field(default_factory=dict)
    control: Levels = field(default_factory=dict)
    pool: Literal["", "area", "rank", "steps"] = ""
    over: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    side: Literal["above", "below"] = "above"
    tolerance: float = 0.0
    evaluation: Literal["first", "last"] = "last"
    paper: str = ""
    unit: str = ""
    decides: bool = True


@dataclass(config=STRICT)
class Claim:
    """A claim: what is said, by whom, with which figures, and how it is put to the test here."""

    id: Annotated[str, Field(pattern=r"^[A-Z]\d+$")]
    idea: Idea
    statement: str
    source: str
    paper: str
    differs: str
    comparisons: list[Comparison]
    literature: str = ""


class ClaimError(ValueError):
    """A claim's file that does not fit; the message names it and what is wrong."""


def read_claim(file: Path) -> Claim:
    """The claim in a file. `defaults` holds what its comparisons have in common."""
    try:
        content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        defaults = content.pop("defaults", {})
        content["comparisons"] = [defaults | comparison for comparison in content.get("comparisons", [])]
        return Claim(**content)
    except (ValidationError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ClaimError(f"{file}: {' '.join(str(error).split())}") from error


@cache
def as_written(file: Path, time: int) -> Claim:
    """The claim that was written into a file at a time: a page asks for all of them twenty times."""
    return read_claim(file)


def claims(folder: Path = FOLDER) -> list[Claim]:
    """All claims, in the order of the ideas and by number."""
    found = [as_written(file, file.stat().st_mtime_ns) for file in folder.glob("*.yaml")]
    return sorted(found, key=lambda claim: (IDEAS.index(claim.idea), claim.id[0], int(claim.id[1:])))


def compared_factors(found: list[Claim]) -> dict[str, set[str]]:
    """The factors of each experiment whose levels claims compare."""
    factors: dict[str, set[str]] = {}
    for comparison in (comparison for claim in found for comparison in claim.comparisons):
        own = factors.setdefault(comparison.experiment, set())
        own |= {*comparison.treatment, *comparison.control, *comparison.over}
    return factors


def check_levels(found: list[Claim], known: dict[str, dict[str, set[str]]]) -> None:
    """Raise ClaimError if a claim compares a level that no run has. known: the levels by experiment and factor."""
    for claim in found:
        for comparison in claim.comparisons:
            factors = known[comparison.experiment]
            for name, level in [*comparison.treatment.items(), *comparison.control.items()]:
                if str(level) not in factors.get(name, set()):
                    there = f"the runs have {', '.join(sorted(factors[name]))}" if name in factors else "no such factor"
                    raise ClaimError(f"claim {claim.id}: {comparison.experiment} has no {name}={level}; {there}")
