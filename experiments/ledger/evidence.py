"""The records behind the claims, and the numbers that comparisons take from them."""

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from experiments.ledger.claims import Comparison, Levels
from experiments.ledger.curves import rank_correlation, smooth, steps_to_equal
from experiments.ledger.effects import Pair, Sample
from experiments.recording.record import Record
from experiments.sweeps.grid import Job

Evidence = dict[Job, Record]
Key = tuple[tuple[str, str], ...]  # levels of factors
EARLIER = (0.25, 0.5, 1.0)  # shares of a training after which it is evaluated, to see whether an effect lasts


@dataclass
class Measured:
    """What the finished records say of a comparison.

    complete: how many seeds, from 0 on, have all of their pairs. jobs: those of each seed. earlier: the sample after
    each share of the training that all records were evaluated at. missing: runs that are not finished, lack what is
    compared, or diverged and do not count, as overrides.
    """

    sample: Sample = field(default_factory=dict)
    complete: int = 0
    jobs: dict[int, list[Job]] = field(default_factory=dict)
    earlier: dict[float, Sample] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def measured(comparison: Comparison, evidence: Evidence) -> Measured:
    """Pair the records of a comparison, by seed and by every factor that its sides do not fix.

    A record that lacks a metric of the comparison is not used.
    """
    if comparison.relative_to:
        treatment, control = comparison.sides[2:]
        other = replace(comparison, treatment=treatment, control=control, relative_to={})
        return less(measured(replace(comparison, relative_to={}), evidence), measured(other, evidence))
    treated = side(comparison, comparison.treatment, evidence)
    controls = side(comparison, comparison.control, evidence) if comparison.control else treated
    if not treated or not controls:
        return Measured(missing=[comparison.experiment])
    jobs = {job for group in (*treated.values(), *controls.values()) for job in group}
    usable = {job for job in jobs if counts(comparison, evidence[job])}
    found, unfinished = Measured(), set[int]()
    for key in sorted(treated.keys() & controls.keys()):
        sides = [treated[key], controls[key]] if comparison.control else [treated[key]]
        todo = [job for jobs in sides for job in jobs if job not in usable]
        seed = int(dict(key).get("seed", 0))
        if todo:
            unfinished.add(seed)
            found.missing += [
                "diverged: " * evidence[job].diverged + " ".join(job.overrides) for job in todo if not job.added
            ]
            continue
        found.jobs.setdefault(seed, []).extend(job for jobs in sides for job in jobs)
        found.sample.setdefault(seed, []).append(pair(comparison, sides, evidence))
        for share in EARLIER if comparison.evaluation == "last" and comparison.pool != "steps" else ():
            if all(evaluated(comparison, evidence[job], share) for jobs in sides for job in jobs):
                earlier = found.earlier.setdefault(share, {})
                earlier.setdefault(seed, []).append(pair(comparison, sides, evidence, share))
    while found.complete in found.sample and found.complete not in unfinished:
        found.complete += 1
    return found


def counts(comparison: Comparison, record: Record) -> bool:
    """Whether a record is evidence of a comparison."""
    ended = record.finished and (comparison.counts_diverged or not record.diverged)
    return ended and not lacking(comparison, record)


def less(own: Measured, other: Measured) -> Measured:
    """What was measured, less what the same seeds measured otherwise."""

    def reduced(sample: Sample, by: Sample) -> Sample:
        return {
            seed: [Pair(x.treatment - y.treatment, x.control - y.control) for x, y in zip(pairs, by[seed], strict=True)]
            for seed, pairs in sample.items()
            if len(by.get(seed, [])) == len(pairs)
        }

    sample = reduced(own.sample, other.sample)
    return Measured(
        sample,
        min(own.complete, other.complete),
        {seed: own.jobs[seed] + other.jobs[seed] for seed in sample},
        {share: reduced(one, other.earlier.get(share, {})) for share, one in own.earlier.items()},
        own.missing + other.missing,
    )


def side(comparison: Comparison, wanted: Levels, evidence: Iterable[Job]) -> dict[Key, list[Job]]:
    """The jobs with the wanted levels, grouped by the levels of the other factors that are not pooled."""
    apart = {*comparison.treatment, *comparison.control, *comparison.over}
    found: dict[Key, list[Job]] = {}
    for job in evidence:
        if job.experiment == comparison.experiment and fits(comparison, wanted, job):
            found.setdefault(tuple(each for each in job.factors if each[0] not in apart), []).append(job)
    return found


def records_of(comparison: Comparison, evidence: Evidence) -> list[Record]:
    """The records of all sides of a comparison."""
    own = [(job, record) for job, record in evidence.items() if job.experiment == comparison.experiment]
    return [record for job, record in own if any(fits(comparison, levels, job) for levels in comparison.sides)]


def fits(comparison: Comparison, wanted: Levels, job: Job) -> bool:
    """Whether a job has the wanted levels and, where ranks are compared, one that the paper ranks."""
    factors = dict(job.factors)
    ranked = comparison.pool != "rank" or factors.get(comparison.over[0]) in comparison.figures
    return ranked and all(factors.get(name) == str(level) for name, level in wanted.items())


def pair(comparison: Comparison, sides: Sequence[list[Job]], evidence: Evidence, share: float = 1.0) -> Pair:
    """One number per side: the metric of its only run, or its runs (or learning curve) pooled by `comparison.pool`."""
    if comparison.pool == "steps":
        return Pair(*steps_to_equal(*(curve_of(comparison.metric, evidence[only]) for (only,) in sides)))
    values = [[metric_of(comparison, comparison.metric, evidence[job], share) for job in jobs] for jobs in sides]
    if comparison.pool == "area":
        best = max(value for row in values for value in row)
        values = [[statistics.fmean(value >= best - comparison.tolerance for value in row)] for row in values]
    if comparison.pool == "rank":
        expected = [[comparison.figures[dict(job.factors)[comparison.over[0]]] for job in jobs] for jobs in sides]
        values = [[rank_correlation(row, figures)] for row, figures in zip(values, expected)]
    found = Pair(*(only for (only,) in values))
    if not comparison.trials:
        return found
    trials = comparison.trials
    counted = metric_of(comparison, trials, evidence[sides[0][0]], share) if isinstance(trials, str) else trials
    return found._replace(trials=counted)


def evaluated(comparison: Comparison, record: Record, share: float) -> bool:
    """Whether a record has the comparison's metric after this share of its training."""
    return comparison.metric in record.summary["evaluations"].get(step_at(record, share), {})


def step_at(record: Record, share: float) -> str:
    """The step after this share of a record's training."""
    return str(int(share * record.summary["steps"]))


def metric_of(comparison: Comparison, metric: str, record: Record, share: float = 1.0) -> float:
    """A metric that a record has; NaN if it was not evaluated after this share of its training."""
    evaluations = record.summary["evaluations"]
    step = evaluation_of(comparison, record) if share == 1.0 else step_at(record, share)
    return float(evaluations[step].get(metric, record.summary.get(metric, math.nan)))


def evaluation_of(comparison: Comparison, record: Record) -> str:
    """The step of a record's first or last evaluation, as the comparison requires."""
    return (min if comparison.evaluation == "first" else max)(record.summary["evaluations"], key=int)


def lacking(comparison: Comparison, record: Record) -> str:
    """The metric of a comparison that a finished record lacks, "" if it has all."""
    if comparison.pool == "steps":
        return "" if curve_of(comparison.metric, record) else comparison.metric
    found = record.summary["evaluations"][evaluation_of(comparison, record)]
    needed = [comparison.metric, *([comparison.trials] if isinstance(comparison.trials, str) else [])]
    return next((name for name in needed if name and name not in found and name not in record.summary), "")


def curve_of(metric: str, record: Record) -> list[tuple[int, float]]:
    """The smoothed metric by step; empty if the record has not logged it."""
    rows = [row for row in record.metrics() if metric in row]
    return list(zip([row["step"] for row in rows], smooth(row[metric] for row in rows)))


def environments_of(evidence: Mapping[Job, Record]) -> list[dict[str, Any]]:
    """The environments of the finished records."""
    return [record.environment for record in evidence.values() if record.finished]


def pythons(environments: Iterable[dict[str, Any]]) -> list[str]:
    """The versions of Python among these environments, oldest first."""
    found = {environment["python"] for environment in environments}
    return sorted(found, key=lambda version: [int(part) for part in re.findall(r"\d+", version)])
