"""The records behind the claims, and the numbers that comparisons take from them."""

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
EXACT = "properties"  # an experiment without training, which claims of every idea need


def side(comparison: Comparison, wanted: Levels, evidence: Evidence) -> dict[tuple[tuple[str, str], ...], list[Job]]:
    """The jobs with the wanted levels, grouped by the levels of the other factors that are not pooled."""
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
    """One number per side: the metric of its only run, or its runs (or learning curve) pooled by `comparison.pool`."""
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
    """The comparison's metric in a record. Raises ClaimError if the record does not have it."""
    evaluations = record.summary["evaluations"]
    step = (min if comparison.evaluation == "first" else max)(evaluations, key=int)
    source = evaluations[step] if comparison.metric in evaluations[step] else record.summary
    if comparison.metric not in source:
        known = ", ".join([*evaluations[step], *record.summary])
        raise ClaimError(f"{record.folder} has no metric {comparison.metric}; it has {known}")
    return float(source[comparison.metric])


def curve_of(metric: str, record: Record) -> list[tuple[int, float]]:
    """The smoothed metric by step. Raises ClaimError if the record has no such metric."""
    rows = [row for row in record.metrics() if metric in row]
    if not rows:
        raise ClaimError(f"{record.folder} has not logged the metric {metric}")
    return list(zip([row["step"] for row in rows], smooth(row[metric] for row in rows)))


def gather(scale: str, outputs: str, seeds: int = 0) -> Evidence:
    """All jobs that claims need, in the order to run them, each with its record, finished or not.

    seeds: minimum number of seeds; 0 for those of the sweeps. Seeds that were added before are always included.
    Raises ConfigError for an unknown scale and ClaimError for a claim about runs that do not exist.
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
    """The runs of a seed beyond those of the sweep; empty if none of them has ever started."""
    found = {job: job.spec() for job in jobs(experiment, scale, outputs, seed + 1, compared) if job.seed == seed}
    return found if any(spec.record.status != "new" for spec in found.values()) else {}


def levels_of(experiment: str, known: Iterable[Job]) -> dict[str, set[str]]:
    """The levels of each factor of an experiment in these jobs."""
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


def unfinished(evidence: Evidence, experiments: list[str]) -> list[Job]:
    """The unfinished runs of these experiments' sweeps, without added seeds."""
    return [
        job
        for job, record in evidence.items()
        if job.experiment in experiments and not job.added and not record.finished
    ]


def chosen(only: str, evidence: Evidence) -> list[str]:
    """The experiments named in `only`, and `properties`, which costs little; all experiments if `only` is empty.

    Raises ConfigError for an experiment without claims.
    """
    known = list(dict.fromkeys(job.experiment for job in evidence))
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ConfigError(f"only={name}: no claim uses this experiment; {nearest(name, known)}")
    return [*names, EXACT] if names else known
