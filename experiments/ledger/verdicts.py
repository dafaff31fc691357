"""Verdicts on claims, from the records of their runs."""

import math
import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from experiments.ledger.claims import Claim, Comparison, claims
from experiments.ledger.evidence import Evidence, pool, pythons, side
from experiments.ledger.statistics import (
    CONFIDENCE,
    Estimate,
    bootstrap,
    estimate,
    estimate_ratio,
    estimate_share,
    values_needed,
)

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_RUN = "reproduced", "not reproduced", "inconclusive", "not run"


@dataclass
class Finding:
    """The result of one comparison: the effect and its interval, the means of both sides, and the records used.

    corrected: the effect with an interval corrected for all claims of the ledger. bootstrapped: with a bootstrap
    interval, for differences and levels with enough pairs.
    """

    comparison: Comparison
    verdict: str
    effect: Estimate
    corrected: Estimate
    bootstrapped: Estimate
    treatment_mean: float | None = None
    control_mean: float | None = None
    parameters: list[int] = field(default_factory=list)
    tokens: int | None = None
    seconds: float = 0.0
    records: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def corrected_verdict(self) -> str:
        """The verdict by the corrected interval."""
        return verdict_on(self.comparison, self.corrected) if self.effect.n else self.verdict

    @property
    def needed(self) -> int | None:
        """The approximate number of pairs that would decide an inconclusive comparison; None if unknown."""
        comparison, effect = self.comparison, self.effect
        if self.verdict != INCONCLUSIVE or comparison.rule == "sign":
            return None
        bounds = [comparison.threshold]
        if comparison.rule == "equivalence":
            bounds = [comparison.threshold - comparison.tolerance, comparison.threshold + comparison.tolerance]
        if comparison.rule == "ratio":  # its interval is computed from logarithms
            effect = Estimate(effect.n, *(math.log(x) for x in (effect.mean, effect.low, effect.high)))
            bounds = [math.log(bound) for bound in bounds]
        return values_needed(effect, min(abs(effect.mean - bound) for bound in bounds))


@dataclass
class Verdict:
    """The verdict on a claim: reproduced if all of its comparisons are, not reproduced if any is not."""

    claim: Claim
    verdict: str
    findings: list[Finding]
    notes: list[str]


def judge_all(evidence: Evidence) -> list[Verdict]:
    """The verdicts on all claims."""
    found = claims()
    return [judge(claim, evidence, len(found)) for claim in found]


def judge(claim: Claim, evidence: Evidence, family: int = 1) -> Verdict:
    """The verdict on a claim, from the finished records of the jobs it needs.

    family: number of claims for which the corrected intervals are corrected. A claim needs no correction for its own
    comparisons, because all of them must hold.
    """
    findings = [find(comparison, evidence, family) for comparison in claim.comparisons]
    found = {finding.verdict for finding in findings if finding.comparison.decides}
    order = (NOT_REPRODUCED, NOT_RUN, INCONCLUSIVE, REPRODUCED)
    return Verdict(claim, next(v for v in order if v in found), findings, notes_on(findings, evidence))


def find(comparison: Comparison, evidence: Evidence, family: int) -> Finding:
    """Pair the records of one comparison and estimate the effect."""
    treated = side(comparison, comparison.treatment, evidence)
    controls = side(comparison, comparison.control, evidence) if comparison.control else {}
    if not treated or (comparison.control and not controls):
        nothing = estimate([])
        return Finding(comparison, NOT_RUN, nothing, nothing, nothing, missing=[comparison.experiment])
    pairs, used, missing = [], [], []
    for key, treatment in sorted(treated.items()):
        both = [treatment, controls[key]] if comparison.control else [treatment]
        unfinished = [job for jobs in both for job in jobs if not evidence[job].finished]
        if unfinished:
            levels = [[f"{name}={level}" for name, level in job.factors] for job in unfinished if not job.added]
            missing += [" ".join([f"experiment={comparison.experiment}", *pairs]) for pairs in levels]
            continue
        pairs.append(pool(comparison, both, evidence))
        used.append(both)
    effect = effect_of(comparison, pairs, CONFIDENCE)
    records = [evidence[job] for both in used for jobs in both for job in jobs]
    summaries = [record.summary for record in records]
    tokens = [summary["tokens"] for summary in summaries if "tokens" in summary]
    return Finding(
        comparison,
        verdict_on(comparison, effect) if pairs else NOT_RUN,
        effect,
        effect_of(comparison, pairs, 1 - (1 - CONFIDENCE) / family),
        bootstrap(effects(comparison, pairs) if comparison.rule in ("difference", "level", "equivalence") else []),
        statistics.fmean(pair[0] for pair in pairs) if pairs else None,
        statistics.fmean(pair[1] for pair in pairs) if pairs and comparison.control else None,
        sorted({summary["parameters"] for summary in summaries}),
        max(tokens) if tokens else None,
        sum(summary["seconds"] for summary in summaries),
        sorted({str(record.folder) for record in records}),
        missing,
    )


def effect_of(comparison: Comparison, pairs: list[list[float]], confidence: float) -> Estimate:
    """The effect over the pairs, with its interval; for rule `exact`, the value furthest from the threshold."""
    if comparison.rule == "exact" and pairs:
        worst = max((pair[0] for pair in pairs), key=lambda value: abs(value - comparison.threshold))
        return Estimate(len(pairs), worst, worst, worst)
    if comparison.rule == "ratio":
        return estimate_ratio([treatment / control for treatment, control in pairs], confidence)
    if comparison.rule == "sign":
        return estimate_share([treatment - control for treatment, control in pairs], confidence)
    return estimate(effects(comparison, pairs), confidence)


def effects(comparison: Comparison, pairs: list[list[float]]) -> list[float]:
    """The difference of each pair or, without a control, the value of the treatment."""
    return [pair[0] - pair[1] if comparison.control else pair[0] for pair in pairs]


def verdict_on(comparison: Comparison, effect: Estimate) -> str:
    """The verdict, by the position of the effect's interval relative to the threshold."""
    if comparison.rule == "exact":
        holds = abs(effect.mean - comparison.threshold) <= comparison.tolerance
        return REPRODUCED if holds else NOT_REPRODUCED
    if comparison.rule == "equivalence":
        low, high = comparison.threshold - comparison.tolerance, comparison.threshold + comparison.tolerance
        inside, outside = low < effect.low and effect.high < high, effect.low > high or effect.high < low
        return REPRODUCED if inside else NOT_REPRODUCED if outside else INCONCLUSIVE
    if effect.low > comparison.threshold:
        return REPRODUCED if comparison.side == "above" else NOT_REPRODUCED
    if effect.high < comparison.threshold:
        return REPRODUCED if comparison.side == "below" else NOT_REPRODUCED
    return INCONCLUSIVE


def notes_on(findings: list[Finding], evidence: Evidence) -> list[str]:
    """Notes on the records behind the findings."""
    used = {folder for finding in findings for folder in finding.records}
    environments = [record.environment for record in evidence.values() if str(record.folder) in used]
    processors = {environment["processor"] for environment in environments}
    notes = [f"the records come from {len(processors)} types of processor"] if len(processors) > 1 else []
    if len(found := pythons(environments)) > 1:
        notes.append(f"the records come from Python {' and '.join(found)}")
    missing = sum(len(finding.missing) for finding in findings)
    return [*notes, f"{missing} runs are missing"] if missing else notes


def as_json(verdicts: list[Verdict], scale: str) -> dict[str, Any]:
    """The ledger as plain data for JSON; NaN and infinity become null."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        if isinstance(value, list):
            return [clean(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {"scale": scale, "claims": [clean(asdict(verdict)) for verdict in verdicts]}
