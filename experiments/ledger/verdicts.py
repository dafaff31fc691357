"""Verdicts on claims, from the records of their runs, at planned looks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from experiments.ledger.claims import Claim, Comparison, claims
from experiments.ledger.effects import (
    AS_CLAIMED,
    NEGATIVE,
    NOT_RUN,
    UNDECIDED,
    Sample,
    effect_of,
    first_seeds,
    outcome,
    value_of,
)
from experiments.ledger.evidence import Evidence, Measured, measured, pythons
from experiments.ledger.intervals import ALPHA, Estimate, average
from experiments.ledger.tuning import by_rate, shifted_in, tunings_in

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE = "reproduced", "not reproduced", "inconclusive"  # or NOT_RUN
MOVING = 1 / 3  # of an effect: by more than this it has changed over the last half of the training


@dataclass
class Finding:
    """The result of one comparison: its outcome, the effect with its interval, the means of both sides, the records.

    look: the number of seeds at which it was decided or last looked at, 0 before the first look. next_look: that of the
    next look at what is undecided, 0 if there is none. trend: the mean effect after each share of the training. rates:
    the learning rates that were chosen, by level. by_rate: the effect on validation data at the rates as shipped, as
    chosen, and at half a decade below and above; the latter two on test data, with intervals, where runs judge them.
    """

    comparison: Comparison
    outcome: str
    effect: Estimate
    look: int = 0
    next_look: int = 0
    treatment_mean: float | None = None
    control_mean: float | None = None
    trend: dict[float, float] = field(default_factory=dict)
    rates: dict[str, str] = field(default_factory=dict)
    by_rate: dict[str, Estimate] = field(default_factory=dict)
    parameters: list[int] = field(default_factory=list)
    tokens: int | None = None
    seconds: float = 0.0
    records: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def moving(self) -> bool:
        """Whether the effect changed by more than a third of itself over the last half of the training."""
        half, last = self.trend.get(0.5), self.trend.get(1.0)
        return half is not None and last is not None and abs(last - half) > MOVING * abs(last)


@dataclass
class Verdict:
    """The verdict on a claim, and the notes on its records. survives: whether the verdict stands when it is corrected
    for all claims of the ledger. by_rate: what it is at half a decade below and above the chosen learning rates."""

    claim: Claim
    verdict: str
    findings: list[Finding]
    notes: list[str]
    survives: bool = False
    by_rate: dict[str, str] = field(default_factory=dict)


def judge_all(evidence: Evidence) -> list[Verdict]:
    """The verdicts on all claims, and which of them survive Holm's correction over all that rest on intervals."""
    found = {claim.id: measured_of(claim, evidence) for claim in claims()}
    shifted = shifted_in(evidence)
    verdicts = [judge(claim, evidence, found[claim.id], shifted) for claim in claims()]
    open_yet = [verdict for verdict in verdicts if verdict.verdict in (REPRODUCED, NOT_REPRODUCED)]
    tested = sum(bool(verdict.claim.looks) for verdict in verdicts)
    while True:
        divisor = max(1, tested - sum(verdict.survives and bool(verdict.claim.looks) for verdict in verdicts))
        surviving = [
            verdict
            for verdict in open_yet
            if conclude(decide(verdict.claim, found[verdict.claim.id], ALPHA / divisor)) == verdict.verdict
        ]
        if not surviving:
            return verdicts
        for verdict in surviving:
            verdict.survives = True
        open_yet = [verdict for verdict in open_yet if not verdict.survives]


def judge(
    claim: Claim,
    evidence: Evidence,
    found: Sequence[Measured] | None = None,
    shifted: Mapping[str, Evidence] | None = None,
) -> Verdict:
    """The verdict on a claim, from the finished records of the jobs it needs. found, shifted: what the records of its
    comparisons say, and the evidence at shifted learning rates, if they are known."""
    found = found or measured_of(claim, evidence)
    shifted = shifted_in(evidence) if shifted is None else shifted
    findings = decide(claim, found)
    for finding, own in zip(findings, found):
        describe(finding, own, evidence)
        finding.by_rate = by_rate(finding.comparison, tunings_in(evidence))
    verdict = Verdict(claim, conclude(findings), findings, notes_on(findings, evidence))
    for name, others in shifted.items():
        judge_shifted(verdict, name, others)
    return verdict


def judge_shifted(verdict: Verdict, name: str, evidence: Evidence) -> None:
    """Add to a verdict what it is at shifted learning rates, by the rules that decide it, where they were run."""
    others = decide(verdict.claim, measured_of(verdict.claim, evidence))
    if conclude(others) == NOT_RUN:
        return
    verdict.by_rate[name] = conclude(others)
    turns = {verdict.verdict, verdict.by_rate[name]} == {REPRODUCED, NOT_REPRODUCED}
    verdict.notes.append(f"{name} in learning rate: {verdict.by_rate[name]}{', so it turns over' * turns}")
    for finding, other in zip(verdict.findings, others):
        if other.outcome != NOT_RUN:
            finding.by_rate[name] = other.effect


def measured_of(claim: Claim, evidence: Evidence) -> list[Measured]:
    """What was measured for each of a claim's comparisons."""
    named = {comparison.experiment for comparison in claim.comparisons}
    own = {job: record for job, record in evidence.items() if job.experiment in named}
    return [measured(comparison, own) for comparison in claim.comparisons]


def conclude(findings: Sequence[Finding]) -> str:
    """Reproduced if all deciding comparisons are as claimed, not reproduced if any is surely not."""
    outcomes = {finding.outcome for finding in findings if finding.comparison.deciding}
    if outcomes & {*NEGATIVE}:
        return NOT_REPRODUCED
    return NOT_RUN if NOT_RUN in outcomes else REPRODUCED if outcomes == {AS_CLAIMED} else INCONCLUSIVE


def decide(claim: Claim, found: Sequence[Measured], alpha: float = ALPHA) -> list[Finding]:
    """The findings of a claim's comparisons at its looks, which spend `alpha` together.

    A comparison is decided at the first look whose interval decides it, and later seeds do not change that. All
    deciding comparisons must be as claimed, so that outcome needs no correction for their number; an outcome against
    the claim does. Before the first look, the interval of the seeds that there are is at the level of the first.
    """
    looks = {seeds: share * alpha / ALPHA for seeds, share in claim.looks.items()} or {0: alpha}
    first = next(iter(looks.values()))
    findings = [
        Finding(comparison, UNDECIDED if own.sample else NOT_RUN, effect_of(comparison, own.sample, first))
        for comparison, own in zip(claim.comparisons, found)
    ]
    for seeds, level in looks.items():
        against = []
        for finding, own in zip(findings, found):
            exact = finding.comparison.is_exact
            if finding.outcome != UNDECIDED or not (exact or own.complete >= seeds):
                continue
            sample = own.sample if exact else first_seeds(own.sample, seeds)
            finding.effect, finding.look = effect_of(finding.comparison, sample, level), seeds
            decision = outcome(finding.comparison, finding.effect)
            if decision in NEGATIVE and finding.comparison.deciding and not exact:
                against.append((finding, sample))
            else:
                finding.outcome = decision
        correct(findings, against, level)
    for finding, own in zip(findings, found):
        later = [seeds for seeds in claim.looks if seeds > own.complete]
        finding.next_look = later[0] if later and finding.outcome in (UNDECIDED, NOT_RUN) else 0
    return findings


def correct(findings: Sequence[Finding], against: list[tuple[Finding, Sample]], level: float) -> None:
    """Of what a look decides against the claim, keep what stands Holm's (1979) correction over its comparisons."""
    tested = [each for each in findings if each.comparison.deciding and not each.comparison.is_exact]
    while True:
        divisor = max(1, len(tested) - sum(finding.outcome in NEGATIVE for finding in tested))
        for finding, sample in against:
            decision = outcome(finding.comparison, effect_of(finding.comparison, sample, level / divisor))
            if finding.outcome == UNDECIDED and decision in NEGATIVE:
                finding.outcome = decision
                break
        else:
            return


def describe(finding: Finding, own: Measured, evidence: Evidence) -> None:
    """Add to a finding what its records say besides."""
    used = {seed: jobs for seed, jobs in own.jobs.items() if not finding.look or seed < finding.look}
    pairs = [pair for seed in used for pair in own.sample[seed]]
    records = [evidence[job] for jobs in used.values() for job in jobs]
    tokens = [record.summary["tokens"] for record in records if "tokens" in record.summary]
    finding.missing = own.missing
    for job in (job for jobs in used.values() for job in jobs if job.rate):
        levels = [level for name, level in job.factors if any(name in side for side in finding.comparison.sides)]
        finding.rates[" ".join(levels)] = job.rate
    if pairs:
        finding.treatment_mean = average(pair.treatment for pair in pairs)
        if finding.comparison.control:
            finding.control_mean = average(pair.control for pair in pairs)
    finding.parameters = sorted({record.summary["parameters"] for record in records})
    finding.tokens = max(tokens, default=None)
    finding.seconds = sum(record.summary["seconds"] for record in records)
    finding.records = sorted({str(record.folder) for record in records})
    for reached, sample in own.earlier.items():
        values = [value_of(finding.comparison, pair) for seed in used for pair in sample.get(seed, [])]
        if values:
            finding.trend[reached] = average(values)


def notes_on(findings: Sequence[Finding], evidence: Evidence) -> list[str]:
    """Notes on the records behind the findings."""
    used = {folder for finding in findings for folder in finding.records}
    environments = [record.environment for record in evidence.values() if str(record.folder) in used]
    processors = {environment["processor"] for environment in environments}
    notes = [f"the records come from {len(processors)} types of processor"] if len(processors) > 1 else []
    if len(found := pythons(environments)) > 1:
        notes.append(f"the records come from Python {' and '.join(found)}")
    missing = sum(len(finding.missing) for finding in findings)
    return [*notes, f"{missing} runs are missing"] if missing else notes


def as_json(verdicts: Sequence[Verdict], scale: str) -> dict[str, Any]:
    """The ledger as plain data for JSON; NaN and infinity become null."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [clean(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    found = [asdict(verdict) for verdict in verdicts]
    for verdict in found:
        for finding in verdict["findings"]:
            finding["effect"] = finding["effect"]._asdict()
            finding["by_rate"] = {name: effect._asdict() for name, effect in finding["by_rate"].items()}
    return {"scale": scale, "claims": [clean(verdict) for verdict in found]}
