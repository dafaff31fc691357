"""The claims, one YAML file each."""

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
    """A measured effect, and what is claimed about it.

    rule: difference (treatment - control), ratio (treatment / control) or sign (share of pairs in which the treatment
    is greater), for runs paired by all factors that neither side fixes; equivalence (the difference is within
    `tolerance` of the threshold); level (the treatment alone); exact (the treatment alone, within `tolerance` of the
    threshold). pool: how runs that differ only in the factors `over` are pooled to one number: area, the share of them
    within `tolerance` of the best run of both sides; rank, Spearman's correlation with the paper's `figures` by level;
    steps, the steps to the final loss of the worse run of the pair, on smoothed curves of the metric. side: the side of
    the threshold on which the effect is claimed to be. evaluation: the first or the last of a run. decides: whether the
    claim's verdict depends on this comparison; if not, it is only shown.
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
    """A claim: its statement, its source, the published figures, and how it is tested here."""

    id: Annotated[str, Field(pattern=r"^[A-Z]\d+$")]
    idea: Idea
    statement: str
    source: str
    paper: str
    differs: str
    comparisons: list[Comparison]
    literature: str = ""


class ClaimError(ValueError):
    """An invalid claim; the message says which claim or record, and what is wrong."""


def read_claim(file: Path) -> Claim:
    """The claim in a YAML file. `defaults` has the settings that its comparisons share. Raises ClaimError."""
    try:
        content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        defaults = content.pop("defaults", {})
        content["comparisons"] = [defaults | comparison for comparison in content.get("comparisons", [])]
        return Claim(**content)
    except (ValidationError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ClaimError(f"{file}: {' '.join(str(error).split())}") from error


@cache
def cached_claim(file: Path, modified: int) -> Claim:
    """The claim in a file, cached until the file is modified: one report reads all claims twenty times."""
    return read_claim(file)


def claims(folder: Path = FOLDER) -> list[Claim]:
    """All claims, ordered by idea and number."""
    found = [cached_claim(file, file.stat().st_mtime_ns) for file in folder.glob("*.yaml")]
    return sorted(found, key=lambda claim: (IDEAS.index(claim.idea), claim.id[0], int(claim.id[1:])))


def compared_factors(found: list[Claim]) -> dict[str, set[str]]:
    """The factors of each experiment that claims compare."""
    factors: dict[str, set[str]] = {}
    for comparison in (comparison for claim in found for comparison in claim.comparisons):
        own = factors.setdefault(comparison.experiment, set())
        own |= {*comparison.treatment, *comparison.control, *comparison.over}
    return factors


def check_levels(found: list[Claim], known: dict[str, dict[str, set[str]]]) -> None:
    """Raise ClaimError if a claim compares a level that no run has. known: levels by experiment and factor."""
    for claim in found:
        for comparison in claim.comparisons:
            factors = known[comparison.experiment]
            for name, level in [*comparison.treatment.items(), *comparison.control.items()]:
                if str(level) not in factors.get(name, set()):
                    there = f"the runs have {', '.join(sorted(factors[name]))}" if name in factors else "no such factor"
                    raise ClaimError(f"claim {claim.id}: {comparison.experiment} has no {name}={level}; {there}")
