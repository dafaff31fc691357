"""The runs that the ledger needs: those of the sweeps, and the seeds up to the next look of what is undecided."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.config.choices import groups, named, nearest
from experiments.config.errors import ConfigError
from experiments.ledger.claims import check_experiments, check_levels, claims, compared_factors
from experiments.ledger.effects import NOT_RUN
from experiments.ledger.evidence import Evidence, fits
from experiments.ledger.tuning import FIRST_SEED, GRID, SHIFTS, Gathered, Tuning, tunings_of
from experiments.ledger.verdicts import INCONCLUSIVE, Verdict
from experiments.recording.look import one_look
from experiments.recording.record import Record
from experiments.sweeps.grid import Job, has_seeds, in_order, jobs, jobs_of_all
from tasks.data.source import DataError

EXACT = "properties"  # an experiment without training, which claims of every idea need
TIMED = ("position_cost", "context_cost")  # experiments that measure time: after all others, one at a time


def gather(scale: str, outputs: str, seeds: int = 0, only: Sequence[str] = ()) -> Gathered:
    """All jobs that claims need, in the order to run them, each with its record, finished or not.

    What no verdict rests on has one seed, and the experiment's learning rate. What a verdict rests on is missing until
    its rate is chosen. seeds: minimum number of seeds; 0 for those of the sweeps. Seeds that were added before are
    always included. only: these experiments; all that claims need if empty. Raises ConfigError for an unknown scale and
    ClaimError for a claim about runs that do not exist.
    """
    if scale not in groups()["scale"]:
        raise ConfigError(f"scale={scale}: no such choice; {nearest(scale, groups()['scale'])}")
    check_experiments(claims(), groups()["experiment"])
    with one_look(outputs):
        return gathered(list(only) or list(compared_factors(claims())), scale, outputs, seeds, check=not only)


def gathered(experiments: list[str], scale: str, outputs: str, seeds: int, check: bool) -> Gathered:
    """See `gather`. check: whether claims may only name levels of these experiments."""
    compared = compared_factors(claims())
    known = jobs_of_all(experiments, [scale], outputs, seeds, compared)[scale]
    if check:
        check_levels(claims(), {experiment: levels_of(experiment, known) for experiment in experiments})
    records: dict[Job, Record] = {}
    tunings: list[Tuning] = []
    shifted: dict[str, Evidence] = {name: {} for name in SHIFTS}
    for experiment in experiments:
        own = [job for job in known if job.experiment == experiment]
        chosen_by = tunings_of_level(own, compared[experiment])
        records |= tuned(needed(own), chosen_by)
        count = 1 + max(job.seed for job in own)
        deciding = deciding_of(job for job in own if job.seed == 0) if has_seeds(experiment, scale) else []
        while added := added_seed(deciding, count, chosen_by):
            records |= added
            count += 1
        tunings += chosen_by.values()
        for name, shift in SHIFTS.items():
            judged = tuned(deciding_of(own) if chosen_by else [], chosen_by, shift)
            shifted[name] |= judged
    return Gathered({job: records[job] for job in in_order(records)}, tunings, shifted)


def expected(experiments: Sequence[str], scale: str, outputs: str) -> list[Job]:
    """The jobs of these experiments as far as they can be foreseen: the first grid of learning rates, and the first
    look, at the experiment's rate where none is chosen yet."""
    compared, found = compared_factors(claims()), list[Job]()
    for experiment in experiments:
        own = jobs(experiment, scale, outputs, 0, compared)
        tunings = tunings_of_level(own, compared.get(experiment, set()))
        for tuning in dict.fromkeys(tunings.values()):
            found += [tuning.trial(step, FIRST_SEED + index) for step in GRID for index in range(tuning.seeds)]
        for job in needed(own):
            level = tunings.get(job.level)
            step = foreseen_step(level) if level else None
            found.append(job if level is None or step is None else replace(job, rate=level.rate(step)))
    return found


def foreseen_step(tuning: Tuning) -> int | None:
    """The chosen rate, in half decades from the experiment's; None if it is not known yet, or cannot be looked up
    because the data cannot be loaded here."""
    if not (Path(tuning.job.outputs) / "runs").is_dir():
        return None  # so that a plan loads no data
    try:
        return tuning.chosen
    except DataError:
        return None


def tunings_of_level(known: Sequence[Job], compared: set[str]) -> dict[Job, Tuning]:
    """The tunings of an experiment's deciding levels, by level."""
    own = deciding_of(job for job in known if job.seed == 0)
    return {job.level: tuning for job, tuning in (tunings_of(own, compared) if own else {}).items()}


def tuned(known: Iterable[Job], tunings: dict[Job, Tuning], shift: int = 0) -> dict[Job, Record]:
    """The runs of these jobs at the rates that were chosen, or so many half decades above them, without those whose
    rate is not chosen yet."""
    found: dict[Job, Record] = {}
    for job in known:
        tuning = tunings.get(job.level)
        if tuning is None:
            found[job] = job.record
        elif tuning.chosen is not None:
            own = replace(job, rate=tuning.rate(tuning.chosen + shift))
            found[own] = own.record
    return found


def needed(known: Iterable[Job]) -> list[Job]:
    """These jobs, of levels that no verdict rests on those of the first seed alone."""
    known = list(known)
    deciding = {*deciding_of(known)}
    return [job for job in known if job.seed == 0 or job in deciding]


def deciding_of(known: Iterable[Job]) -> list[Job]:
    """Those of these jobs on whose levels a verdict rests."""
    rows = [each for claim in claims() for each in claim.comparisons if each.deciding]
    sides = [(each, levels) for each in rows for levels in each.sides]
    return [
        job for job in known if any(each.experiment == job.experiment and fits(each, own, job) for each, own in sides)
    ]


def added_seed(own: Sequence[Job], seed: int, tunings: dict[Job, Tuning]) -> dict[Job, Record]:
    """The runs of a seed beyond those of the sweep, whose first seed has these; empty if none of them ever started."""
    found = tuned((replace(job.with_seed(seed), added=True) for job in own), tunings)
    return found if any(record.status != "new" for record in found.values()) else {}


def levels_of(experiment: str, known: Iterable[Job]) -> dict[str, set[str]]:
    """The levels of each factor of an experiment in these jobs."""
    found: dict[str, set[str]] = {}
    for job in known:
        for name, level in job.factors if job.experiment == experiment else ():
            found.setdefault(name, set()).add(level)
    return found


def unfinished(evidence: Evidence, experiments: Sequence[str]) -> list[Job]:
    """The unfinished runs of these experiments' sweeps, without added seeds."""
    return [
        job
        for job, record in evidence.items()
        if job.experiment in experiments and not job.added and not record.finished
    ]


def missing_trials(evidence: Gathered, experiments: Sequence[str]) -> list[Job]:
    """The trials that choose the learning rates of these experiments, as far as they are known to be needed."""
    own = [tuning for tuning in evidence.tunings if tuning.job.experiment in experiments]
    return [job for tuning in own for job in tuning.missing]


def at_shifted_rates(evidence: Gathered, experiments: Sequence[str]) -> list[Job]:
    """The unfinished runs of these experiments at half a decade below and above the chosen rates."""
    return [
        job
        for own in evidence.shifted.values()
        for job, record in own.items()
        if job.experiment in experiments and not job.added and not record.finished
    ]


def last_look() -> int:
    """The most seeds at which any claim is looked at."""
    return max(seeds for claim in claims() for seeds in claim.looks)


def next_look(verdicts: Sequence[Verdict], evidence: Evidence, experiments: Sequence[str]) -> list[Job]:
    """The unfinished runs, in these experiments, up to the next planned look of every undecided comparison of every
    inconclusive claim. Only seeds that are in the evidence are considered."""
    found: dict[Job, None] = {}
    for verdict in verdicts:
        for finding in verdict.findings if verdict.verdict in (INCONCLUSIVE, NOT_RUN) else ():
            comparison, look = finding.comparison, finding.next_look
            if comparison.deciding and comparison.experiment in experiments:
                own = (job for job in evidence if job.experiment == comparison.experiment and job.seed < look)
                sides = [job for job in own if any(fits(comparison, levels, job) for levels in comparison.sides)]
                found |= {job: None for job in sides if not evidence[job].finished}
    return list(found)


def chosen(only: str) -> list[str]:
    """The experiments named in `only`, and `properties`, which costs little; all experiments if `only` is empty.

    Raises ConfigError for an experiment without claims.
    """
    known = list(compared_factors(claims()))
    names = named(only, known, "only")
    return [*names, EXACT] if names else known
