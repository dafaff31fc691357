"""The claims, one YAML file each, and the paper that they are of."""

import math
from collections.abc import Callable, Sequence
from dataclasses import field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from experiments.config import plugins
from experiments.config.choices import nearest
from experiments.ledger.intervals import ALPHA
from experiments.recording.contents import YAML

FOLDER = Path(__file__).resolve().parent
STRICT = ConfigDict(extra="forbid")
EXACT = ("exact", "counted")  # rules of what is worked out or counted, so that it has no interval
PAPER = "paper.yaml"  # beside the claims; a folder from outside that has one is a ledger of its own
T = TypeVar("T")
Levels = dict[str, str | int | float]


@dataclass(config=STRICT)
class Comparison:
    """A measured effect, and what is claimed about it.

    rule: difference (treatment - control), ratio (treatment / control) or sign (share of pairs in which the treatment
    is greater), for runs paired by all factors that neither side fixes; equivalence (the difference is no larger than
    the smallest effect of interest); level (the treatment alone); exact (the treatment alone, within `tolerance` of the
    threshold); counted (the treatment alone, a number that no seed changes, beyond the threshold). side: the side of
    the threshold on which the effect is claimed to be. relative_to: levels of other runs, whose difference is
    subtracted from that of these. evaluation: the first or the last of a run.

    smallest: the smallest effect of interest, in units of the metric or, of a ratio, the smallest one above 1; because:
    why it is that. trials: over how many trials a run counted a share, or the metric that says so. given: why a
    comparison cannot come out negative, if so. decides: whether the verdict may rest on it; if not, it is only shown.
    counts_diverged: whether a run that diverged counts with the metrics that it has; if not, its pair is left out and
    its seed is not complete.

    pool: how runs that differ only in the factors `over` are pooled to one number: area, the share of them within
    `tolerance` of the best run of both sides; rank, Spearman's correlation with the paper's `figures` by level; steps,
    the steps to the final loss of the worse run of the pair, on smoothed curves of the metric.
    """

    label: str
    experiment: str
    metric: str
    rule: Literal["difference", "equivalence", "ratio", "sign", "level", "exact", "counted"]
    threshold: float
    treatment: Levels = field(default_factory=dict)
    control: Levels = field(default_factory=dict)
    relative_to: Levels = field(default_factory=dict)
    pool: Literal["", "area", "rank", "steps"] = ""
    over: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    side: Literal["above", "below"] = "above"
    tolerance: float = 0.0
    smallest: Annotated[float | None, Field(validate_default=True)] = None
    because: str = ""
    trials: str | int = ""
    evaluation: Literal["first", "last"] = "last"
    paper: str = ""
    unit: str = ""
    given: str = ""
    decides: bool = True
    counts_diverged: bool = False

    @property
    def deciding(self) -> bool:
        """Whether the claim's verdict rests on this comparison."""
        return self.decides and not self.given

    @property
    def is_exact(self) -> bool:
        """Whether what is compared is worked out or counted, so that it has no interval."""
        return self.rule in EXACT

    @property
    def sides(self) -> list[Levels]:
        """The levels of all runs that are compared: of the treatment, the control and what they are relative to."""
        own = [self.treatment, self.control] if self.control else [self.treatment]
        return [*own, *(side | self.relative_to for side in own if self.relative_to)]

    @field_validator("smallest")
    @classmethod
    def check_smallest(cls, smallest: float | None, info: ValidationInfo) -> float | None:
        """Refuse a smallest effect of interest that is missing, or that is none."""
        rule = info.data.get("rule")
        if rule not in EXACT and smallest is None:
            raise ValueError("the smallest effect of interest is missing: say how small an effect no longer matters")
        if smallest is not None and smallest <= (1 if rule == "ratio" else 0):
            raise ValueError("the smallest effect of interest must be above 0, or above 1 for a ratio")
        return smallest


@dataclass(config=STRICT)
class Paper:
    """What a ledger is about: its title, a sentence below it, and its ideas in order, each with the question that the
    claims answer."""

    title: str
    lead: str
    ideas: dict[str, str]


@dataclass(config=STRICT)
class Claim:
    """A claim: its statement, its source, the published figures, and how it is tested here.

    looks: the numbers of seeds at which the results are looked at, and the share of ALPHA that is spent at each.
    """

    id: Annotated[str, Field(pattern=r"^[A-Z]\d+$")]
    idea: str
    statement: str
    source: str
    paper: str
    differs: str
    comparisons: list[Comparison]
    looks: Annotated[dict[int, float], Field(default_factory=dict, validate_default=True)]
    literature: str = ""

    @field_validator("looks")
    @classmethod
    def check_looks(cls, looks: dict[int, float], info: ValidationInfo) -> dict[int, float]:
        """Refuse looks that are missing, that do not increase or that spend more or less than ALPHA."""
        if all(comparison.is_exact for comparison in info.data.get("comparisons", [])):
            return looks
        if not looks:
            raise ValueError("looks are missing: say at how many seeds the results are looked at, such as {4: 0.05}")
        if list(looks) != sorted(looks) or min(looks) < 2:
            raise ValueError(f"the seeds of looks must increase from 2 on, not {', '.join(map(str, looks))}")
        if min(looks.values()) <= 0 or not math.isclose(sum(looks.values()), ALPHA):
            raise ValueError(f"the α of all looks must add up to {ALPHA}, not {sum(looks.values()):g}")
        return looks


class ClaimError(ValueError):
    """An invalid claim; the message says which claim or record, and what is wrong."""


def read_claim(file: Path) -> Claim:
    """The claim in a YAML file. `defaults` has the settings that its comparisons share. Raises ClaimError."""

    def claim(content: dict[str, Any]) -> Claim:
        defaults = content.pop("defaults", {})
        content["comparisons"] = [defaults | comparison for comparison in content.get("comparisons", [])]
        return Claim(**content)

    return read(file, claim)


def read(file: Path, build: Callable[[dict[str, Any]], T]) -> T:
    """What is built of the content of a YAML file. Raises ClaimError with the file's name and line."""
    try:
        text = file.read_text(encoding="utf-8")
        return build(yaml.load(text, Loader=YAML))
    except ValidationError as error:
        first = min(error.errors(), key=lambda each: each["type"] != "unexpected_keyword_argument")
        line, name = line_of(text, first["loc"]), ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise ClaimError(f"{file}, line {line}: {name}: {message}") from error
    except (TypeError, AttributeError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ClaimError(f"{file}: {' '.join(str(error).split())}") from error


def line_of(text: str, path: Sequence[str | int]) -> int:
    """The line of a YAML text, from 1, where what a path names begins, or the last part of it that there is."""
    node = yaml.compose(text, YAML)
    line = 0
    for key in path:
        if isinstance(node, yaml.MappingNode):
            found = [pair for pair in node.value if pair[0].value == str(key)]
            if not found:
                break
            line, node = found[0][0].start_mark.line, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line
    return line + 1


@cache
def cached_claim(file: Path, modified: int) -> Claim:
    """The claim in a file, cached until the file is modified: one report reads all claims twenty times."""
    return read_claim(file)


def folders() -> list[Path]:
    """The folders of the claims: ours and those from outside, or only the latter if one of them has a paper."""
    outside = plugins.folders(plugins.CLAIMS, "claims")
    return outside if any((folder / PAPER).exists() for folder in outside) else [FOLDER, *outside]


def paper() -> Paper:
    """What the ledger is about. Raises ClaimError."""
    files = [folder / PAPER for folder in folders()]
    return read(next(file for file in files if file.exists()), lambda content: Paper(**content))


def claims() -> list[Claim]:
    """All claims, ordered by idea and number. One from outside replaces ours of the same id. Raises ClaimError."""
    files = [file for folder in folders() for file in sorted(folder.glob("*.yaml")) if file.name != PAPER]
    found = {claim.id: claim for claim in (cached_claim(file, file.stat().st_mtime_ns) for file in files)}
    ideas = list(dict.fromkeys([*paper().ideas, *(claim.idea for claim in found.values())]))
    return sorted(found.values(), key=lambda claim: (ideas.index(claim.idea), claim.id[0], int(claim.id[1:])))


def compared_factors(found: list[Claim]) -> dict[str, set[str]]:
    """The factors of each experiment that claims compare."""
    factors: dict[str, set[str]] = {}
    for comparison in (comparison for claim in found for comparison in claim.comparisons):
        own = factors.setdefault(comparison.experiment, set())
        own |= {name for side in comparison.sides for name in side} | {*comparison.over}
    return factors


def check_experiments(found: list[Claim], known: Sequence[str]) -> None:
    """Raise ClaimError if a claim is about an experiment that there is none of."""
    for claim in found:
        for comparison in claim.comparisons:
            if comparison.experiment not in known:
                hint = nearest(comparison.experiment, known)
                raise ClaimError(f"claim {claim.id}: there is no experiment {comparison.experiment}; {hint}")


def check_levels(found: list[Claim], known: dict[str, dict[str, set[str]]]) -> None:
    """Raise ClaimError if a claim compares a level that no run has. known: levels by experiment and factor."""
    for claim in found:
        for comparison in claim.comparisons:
            factors = known[comparison.experiment]
            for name, level in [level for side in comparison.sides for level in side.items()]:
                if str(level) not in factors.get(name, set()):
                    there = f"the runs have {', '.join(sorted(factors[name]))}" if name in factors else "no such factor"
                    raise ClaimError(f"claim {claim.id}: {comparison.experiment} has no {name}={level}; {there}")
