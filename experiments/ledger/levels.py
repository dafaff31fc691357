"""Levels compared without a claim: the mean of each over the seeds, and differences to the best, paired by seed."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.config.cache import choices
from experiments.config.choices import groups
from experiments.config.errors import ConfigError
from experiments.ledger.claims import claims, compared_factors
from experiments.ledger.intervals import Estimate, average, mean
from experiments.ledger.runs import gather
from experiments.ledger.tuning import shifted_in, tunings_in
from experiments.recording.contents import STATUS
from experiments.recording.record import Record, records

Factors = dict[str, str]
NO_FACTORS = ("experiment", "scale", "outputs", "cache", "threads", "tracking", "plugins", "training.log_every")


@dataclass(frozen=True)
class Result:
    """A finished run: the levels that its overrides choose, without the seed; its seed; its record."""

    factors: Factors
    seed: int
    record: Record

    def value(self, metric: str) -> float:
        """A metric of the last evaluation or a number of the summary, NaN if there is none."""
        return float(self.record.summary["metrics"].get(metric, self.record.summary.get(metric, math.nan)))


@dataclass
class Level:
    """The runs with the same levels of what is compared: n seeds, their mean with its 95 % interval, and the difference
    to the best level, paired by seed and by all other factors; that of the best level itself is None."""

    factors: Factors
    values: dict[tuple[int, str], float]
    estimate: Estimate
    difference: Estimate | None = None

    @property
    def half_width(self) -> float:
        """Half of the interval of the mean, NaN if there is none."""
        return (self.estimate.high - self.estimate.low) / 2

    @property
    def decided(self) -> bool:
        """Whether the interval of the difference to the best level excludes 0."""
        own = self.difference
        return own is not None and math.isfinite(own.low) and not own.low <= 0 <= own.high


def levels(results: Iterable[Result], names: Sequence[str], metric: str, lower: bool) -> list[Level]:
    """The levels of these factors, the best first. Runs without a finite value of the metric are left out."""
    found: dict[tuple[str, ...], dict[tuple[int, str], float]] = {}
    for result in results:
        value = result.value(metric)
        if math.isfinite(value):
            others = ",".join(f"{name}={level}" for name, level in result.factors.items() if name not in names)
            own = found.setdefault(tuple(result.factors.get(name, "") for name in names), {})
            own[result.seed, others] = value
    rows = [Level(dict(zip(names, key)), values, over_seeds(values)) for key, values in found.items()]
    rows.sort(key=lambda level: level.estimate.mean if lower else -level.estimate.mean)
    for level in rows[1:]:
        shared = rows[0].values.keys() & level.values.keys()
        level.difference = over_seeds({key: level.values[key] - rows[0].values[key] for key in sorted(shared)})
    return rows


def over_seeds(values: dict[tuple[int, str], float]) -> Estimate:
    """The mean over the seeds, each of which is first averaged over the other factors."""
    seeds = sorted({seed for seed, _ in values})
    return mean([average(value for (own, _), value in values.items() if own == seed) for seed in seeds])


def results_of(experiment: str, scale: str, outputs: str) -> tuple[list[Result], int]:
    """The finished runs of an experiment: those that the ledger judges, and the user's own beside them, of several with
    the same levels and seed the latest. Returns how many earlier ones are left out, too.

    Runs that chose a learning rate, or that the ledger repeats at another one, are no results. Raises ConfigError if
    there is none.
    """
    judged = experiment in compared_factors(claims())
    evidence = gather(scale, outputs, only=[experiment]) if judged else {}
    known = {record.folder for record in evidence.values()}
    known |= {record.folder for tuning in tunings_in(evidence) for record in tuning.records.values()}
    known |= {record.folder for shifted in shifted_in(evidence).values() for record in shifted.values()}
    own = [record for record in records(outputs, experiment) if record.folder not in known and record.finished]
    own.sort(key=lambda record: -(record.folder / STATUS).stat().st_mtime_ns)
    found: dict[tuple[Any, ...], Result] = {}
    candidates = [(dict(job.factors), record) for job, record in evidence.items() if record.finished]
    candidates += [
        (factors_of(record.environment.get("overrides", [])), record)
        for record in own
        if record.environment["scale"] == scale
    ]
    for factors, record in with_all_levels(candidates):
        seed = int(factors.pop("seed", record.config["seed"]))
        found.setdefault((seed, *sorted(factors.items())), Result(factors, seed, record))
    if not found:
        raise ConfigError(f"no finished run of {experiment} at scale {scale} under {outputs}")
    return list(found.values()), len(candidates) - len(found)


def factors_of(overrides: Sequence[str]) -> Factors:
    """What overrides choose, besides where and how a run is run."""
    pairs: list[Any] = [override.lstrip("+").partition("=")[::2] for override in overrides]
    return {
        name: level for name, level in pairs if name.split(".")[0] not in NO_FACTORS and not name.startswith("hydra")
    }


def with_all_levels(runs: Sequence[tuple[Factors, Record]]) -> list[tuple[Factors, Record]]:
    """Finished runs of one experiment, each with a level of every factor that any of them chooses, in the same order.

    A run that does not choose a factor has the experiment's own level of it, if there is one.
    """
    names = dict.fromkeys(name for factors, _ in runs for name in factors)
    return [
        ({name: level for name in names if (level := factors.get(name) or own_level(name, record))}, record)
        for factors, record in runs
    ]


def own_level(name: str, record: Record) -> str:
    """The level of a factor in a run whose overrides do not choose it, "" if it has none."""
    if name in groups():
        experiment = record.folder.parent.name
        known = experiment in groups()["experiment"]
        return choices(experiment, record.config["scale"]).get(name, "") if known else ""
    node: Any = record.config
    for part in name.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return "" if node is None or isinstance(node, dict) else str(node)


def varying(results: Sequence[Result]) -> list[str]:
    """The factors that have more than one level, in their order."""
    names = list(dict.fromkeys(name for result in results for name in result.factors))
    return [name for name in names if len({result.factors.get(name) for result in results}) > 1]
