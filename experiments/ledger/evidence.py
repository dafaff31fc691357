"""The records that claims rest on, and the numbers that comparisons take from them."""

import re
import statistics
from collections.abc import Iterable
from typing import Any

from experiments.config.choices import groups, nearest
from experiments.config.errors import ConfigError
from experiments.ledger.claims import ClaimError, Comparison, Levels, check_levels, claims, compared_factors
from experiments.ledger.statistics import rank_correlation, smooth, steps_to_equal
from experiments.records.record import Record
from experiments.sweeps.grid import Compared, Job, in_order, jobs, jobs_of_all
from experiments.training.run_spec import RunSpec

Evidence = dict[Job, Record]
EXACT = "properties"  # nothing is trained in it, and claims of every idea rest on it


def side(comparison: Comparison, wanted: Levels, evidence: Evidence) -> dict[tuple[tuple[str, str], ...], list[Job]]:
    """The jobs with the wanted levels, by the levels of the factors that are neither fixed nor pooled: what pairs."""
    apart = {*comparison.treatment, *comparison.control, *comparison.over}
    found: dict[tuple[tuple[str, str], ...], list[Job]] = {}
    for job in evidence:
        factors = dict(job.factors)
        fits = all(factors.get(name) == str(level) for name, level in wanted.items())
        if comparison.pool == "rank":
            fits = fits and factors.get(comparison.over[0]) in comparison.figures
        if job.experiment == comparison.experiment and fits:
            found.setdefault(tuple(pair for pair in job.factors if pair[0] not in apart), []).append(job)
    return found


def pool(comparison: Comparison, sides: list[list[Job]], evidence: Evidence) -> list[float]:
    """One number for each side: the metric of its only run, or what `pool` makes of its curve or of several runs."""
    if comparison.pool == "steps":
        return steps_to_equal(*(curve_of(comparison.metric, evidence[only]) for (only,) in sides))
    values = [[value_of(comparison, evidence[job]) for job in jobs] for jobs in sides]
    if comparison.pool == "area":
        best = max(value for row in values for value in row)
        return [statistics.fmean(value >= best - comparison.tolerance for value in row) for row in values]
    if comparison.pool == "rank":
        expected = [[comparison.figures[dict(job.factors)[comparison.over[0]]] for job in jobs] for jobs in sides]
        return [rank_correlation(row, figures) for row, figures in zip(values, expected)]
    return [only for (only,) in values]


def value_of(comparison: Comparison, record: Record) -> float:
    """The metric of a record. One that the run did not measure is an error of the claim's file."""
    evaluations = record.summary["evaluations"]
    step = (min if comparison.evaluation == "first" else max)(evaluations, key=int)
    source = evaluations[step] if comparison.metric in evaluations[step] else record.summary
    if comparison.metric not in source:
        known = ", ".join([*evaluations[step], *record.summary])
        raise ClaimError(f"{record.folder} has no metric {comparison.metric}; it has {known}")
    return float(source[comparison.metric])


def curve_of(metric: str, record: Record) -> list[tuple[int, float]]:
    """A metric by step, smoothed."""
    rows = [row for row in record.metrics() if metric in row]
    if not rows:
        raise ClaimError(f"{record.folder} has logged no {metric}")
    return list(zip([row["step"] for row in rows], smooth(row[metric] for row in rows)))


def gather(scale: str, outputs: str, seeds: int = 0) -> Evidence:
    """Every job that a claim could rest on, in the order to run them, with its record, finished or not.

    seeds: how many seeds there are to be at least; without it, those of the sweeps and what was once added to them.
    Raises ConfigError for a scale that does not exist and ClaimError for a claim about runs that do not.
    """
    if scale not in groups()["scale"]:
        raise ConfigError(f"scale={scale}: no such choice; {nearest(scale, groups()['scale'])}")
    compared = compared_factors(claims())
    experiments = list(compared)
    specs = {job: job.spec() for job in jobs_of_all(experiments, [scale], outputs, seeds, compared)[scale]}
    for experiment in experiments:
        count = 1 + max(job.seed for job in specs if job.experiment == experiment)
        while added := added_seed(experiment, scale, outputs, count, compared):
            specs |= added
            count += 1
    check_levels(claims(), {experiment: levels_of(experiment, specs) for experiment in experiments})
    return {job: specs[job].record for job in in_order(specs)}


def added_seed(experiment: str, scale: str, outputs: str, seed: int, compared: Compared) -> dict[Job, RunSpec]:
    """The runs of a seed beyond the sweep's own, nothing if none of them was ever begun."""
    found = {job: job.spec() for job in jobs(experiment, scale, outputs, seed + 1, compared) if job.seed == seed}
    return found if any(spec.record.status != "new" for spec in found.values()) else {}


def levels_of(experiment: str, known: Iterable[Job]) -> dict[str, set[str]]:
    """The levels that each factor of an experiment has among these jobs."""
    found: dict[str, set[str]] = {}
    for job in known:
        for name, level in job.factors if job.experiment == experiment else ():
            found.setdefault(name, set()).add(level)
    return found


def environments_of(evidence: Evidence) -> list[dict[str, Any]]:
    """The environments of the finished records."""
    return [record.environment for record in evidence.values() if record.finished]


def pythons(environments: Iterable[dict[str, Any]]) -> list[str]:
    """The versions of Python among these environments, oldest first."""
    found = {environment["python"] for environment in environments}
    return sorted(found, key=lambda version: [int(part) for part in re.findall(r"\d+", version)])


def lacking(evidence: Evidence, experiments: list[str]) -> list[Job]:
    """The runs of these experiments' own sweeps that are not finished."""
    return [
        job
        for job, record in evidence.items()
        if job.experiment in experiments and not job.added and not record.finished
    ]


def chosen(only: str, evidence: Evidence) -> list[str]:
    """The experiments named by `only`, and what costs nothing; all if it is empty."""
    known = list(dict.fromkeys(job.experiment for job in evidence))
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ConfigError(f"only={name}: no claim rests on such an experiment; {nearest(name, known)}")
    return [*names, EXACT] if names else known
