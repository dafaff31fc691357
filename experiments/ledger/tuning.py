"""Learning rates: each level of a trained comparison gets its own, by the validation split, on seeds of its own."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from experiments.config.cache import composition
from experiments.ledger.claims import Comparison
from experiments.ledger.effects import effect_of
from experiments.ledger.evidence import Evidence, measured
from experiments.ledger.intervals import ALPHA, Estimate, average
from experiments.recording.record import Record
from experiments.sweeps.grid import Job

FIRST_SEED = 1000  # of trials; no run that is judged has it
GRID = (-1, 0, 1)  # half decades from the experiment's rate, at first
SHIFTS = {"half a decade down": -1, "half a decade up": 1}  # from the chosen rates
WIDEST = 4  # half decades that the grid may grow to on either side


@dataclass(frozen=True)
class Tuning:
    """The trials of one level: runs at several learning rates, of which the best on validation data is chosen.

    job: a run of the level at the experiment's own rate. Budgets are equal: every level has the same grid and seeds,
    and the grid grows where its best rate is at an edge, until it is not.
    """

    job: Job
    metric: str
    goal: str
    seeds: int
    shipped: float
    records: dict[tuple[int, int], Record] = field(default_factory=dict, compare=False)

    def rate(self, half_decades: int) -> str:
        """The learning rate so many half decades above the experiment's."""
        return f"{self.shipped * 10 ** (half_decades / 2):.3g}"

    def trial(self, half_decades: int, seed: int) -> Job:
        """The run that tries a rate on one seed."""
        return replace(self.job.with_seed(seed), rate=self.rate(half_decades), trial=True)

    def record(self, half_decades: int, seed: int) -> Record:
        """The record of a trial, finished or not."""
        key = half_decades, seed
        if key not in self.records:
            self.records[key] = self.trial(*key).record
        return self.records[key]

    def score(self, half_decades: int) -> float | None:
        """How good a rate is on validation data, the more the better; None before all of its trials have the metric.

        A rate at which a training diverges is as bad as can be.
        """
        records = [self.record(half_decades, FIRST_SEED + index) for index in range(self.seeds)]
        if not all(record.finished for record in records):
            return None
        if any(record.diverged for record in records):
            return -math.inf
        if not all(self.metric in record.summary["metrics"] for record in records):
            return None
        value = average(record.summary["metrics"][self.metric] for record in records)
        return -math.inf if math.isnan(value) else -value if self.goal == "minimize" else value

    @cached_property
    def tried(self) -> dict[int, float | None]:
        """The score of every rate of the grid, which has grown as far as finished trials say."""
        scores = {step: self.score(step) for step in GRID}
        while None not in scores.values():
            best = max(scores, key=lambda step: scores[step])  # type: ignore[arg-type, return-value]
            beyond = best + (1 if best == max(scores) else -1)
            if beyond in scores or abs(best) == WIDEST:
                break
            scores[beyond] = self.score(beyond)
        return scores

    @property
    def chosen(self) -> int | None:
        """The best rate, in half decades from the experiment's; None while trials are missing."""
        if None in self.tried.values():
            return None
        return max(self.tried, key=lambda step: self.tried[step])  # type: ignore[arg-type, return-value]

    @property
    def missing(self) -> list[Job]:
        """The trials that are not finished."""
        wanted = [(step, FIRST_SEED + index) for step in self.tried for index in range(self.seeds)]
        return [self.trial(*each) for each in wanted if not self.record(*each).finished]


class Gathered(Evidence):
    """The evidence at one scale, and the tunings of the levels that verdicts rest on.

    shifted: the evidence with all rates half a decade below and above the chosen ones, by the name of the shift.
    """

    def __init__(self, records: Evidence, tunings: Iterable[Tuning], shifted: dict[str, Evidence]):
        super().__init__(records)
        self.tunings, self.shifted = list(dict.fromkeys(tunings)), shifted


def tunings_in(evidence: Evidence) -> list[Tuning]:
    """The tunings of gathered evidence; none of any other."""
    return evidence.tunings if isinstance(evidence, Gathered) else []


def shifted_in(evidence: Evidence) -> dict[str, Evidence]:
    """Gathered evidence at shifted rates, of experiments that have been run at them; none of any other."""
    found = {}
    for name, own in evidence.shifted.items() if isinstance(evidence, Gathered) else ():
        begun = {job.experiment for job, record in own.items() if record.finished}
        found[name] = {job: record for job, record in own.items() if job.experiment in begun}
    return found


def tunings_of(known: Sequence[Job], compared: set[str]) -> dict[Job, Tuning]:
    """The tuning of each of an experiment's jobs, which all jobs share that agree in the compared factors.

    It is done at the last level of the other factors. Empty if the experiment's rates are not chosen at this scale.
    """
    config = composition(known[0].overrides, 0, known[0].outputs)
    settings = config.get("tuning")
    if not settings or not settings["seeds"]:
        return {}
    last = dict(known[-1].factors)
    found: dict[Job, Tuning] = {}
    for job in known:
        factors = tuple((name, level if name in compared else last[name]) for name, level in job.factors)
        base = replace(job, factors=factors, added=False)
        own = composition(base.overrides, 0, base.outputs)
        found[job] = Tuning(base, settings["metric"], settings["goal"], settings["seeds"], own["optimizer"]["lr"])
    return found


def by_rate(comparison: Comparison, tunings: Iterable[Tuning]) -> dict[str, Estimate]:
    """The effect on validation data at the rates that were shipped, at those that were chosen, and at half a decade
    below and above them on both sides; only those that all of its levels were tried at."""
    own = [each for each in tunings if each.job.experiment == comparison.experiment and each.chosen is not None]
    shifts: dict[str, int | None] = {"shipped": None, "chosen": 0, **SHIFTS}
    found = {}
    for name, shift in shifts.items():
        evidence: Evidence = {}
        for tuning in own:
            step = 0 if shift is None else (tuning.chosen or 0) + shift
            if step in tuning.tried:
                for index in range(tuning.seeds):
                    # Seeds of trials are counted from 0 here, as those of judged runs are.
                    evidence[tuning.job.with_seed(index)] = tuning.record(step, FIRST_SEED + index)
        sample = measured(comparison, evidence).sample
        if sample:
            found[name] = effect_of(comparison, sample, ALPHA)
    return found
