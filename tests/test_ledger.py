"""Rules and verdicts: every claim's rule comes out each way when the records do."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from scipy import stats

from experiments.ledger.claims import Claim, ClaimError, Comparison, claims, read_claim
from experiments.ledger.evidence import Evidence, environments_of, pythons
from experiments.ledger.statistics import (
    bootstrap,
    estimate,
    estimate_ratio,
    estimate_share,
    rank_correlation,
    steps_to_equal,
    values_needed,
)
from experiments.ledger.verdicts import as_json, judge
from experiments.records.record import Record, to_json
from experiments.sweeps.grid import Job, jobs
from tasks.data.source import write_atomically


def write_record(folder: Path, metrics: dict[str, float], identity: Mapping[str, str] = MappingProxyType({})) -> Record:
    """A finished record with these metrics at its first and last evaluation."""
    record = Record(folder)
    record.folder.mkdir(parents=True, exist_ok=True)
    with open(record.metrics_file, "w") as rows:  # falls from 200 to the last value
        for step in range(10, 110, 10):
            row = {name: 200 + (value - 200) * step / 100 for name, value in metrics.items()}
            rows.write(json.dumps({"step": step, **row}) + "\n")
    record.begin({"name": "made up", "scale": "laptop", "data": {}}, {"processor": "p", "python": "3.11.7", **identity})
    evaluations = {"1": metrics, "2": metrics}
    record.finish({"metrics": metrics, "evaluations": evaluations, "parameters": 1, "seconds": 1.0} | metrics, {})
    return record


def world(comparison: Comparison, folder: Path, value: Callable[[Job, bool], float]) -> Evidence:
    """Records for the jobs that a comparison is about; `value(job, treated)` is their metric."""
    evidence = {}
    for index, job in enumerate(jobs(comparison.experiment, "laptop", str(folder))):
        treated, control = (fits(job, levels) for levels in (comparison.treatment, comparison.control))
        if treated or (comparison.control and control):
            metrics = {comparison.metric: value(job, treated)}
            evidence[job] = write_record(folder / str(index), metrics)
    return evidence


def fits(job: Job, levels: dict) -> bool:
    return all(dict(job.factors).get(name) == str(level) for name, level in levels.items())


def pooled(comparison: Comparison, job: Job, treated: bool, holds: bool) -> float:
    """The metric of one of several runs that become one number, in a world where the claim holds or does not."""
    level = dict(job.factors)[comparison.over[0]]
    if comparison.pool == "rank":
        return comparison.figures.get(level, 0.0) * (1 if holds else -1)
    trains = treated == holds or level == "0.1"  # one side everywhere, the other one in a part of the grid
    return 90.0 if trains else 10.0


COMPARISONS = [(claim, comparison) for claim in claims() for comparison in claim.comparisons]
NAMES = [f"{claim.id}: {comparison.label}" for claim, comparison in COMPARISONS]


@pytest.mark.slow
@pytest.mark.parametrize(("claim", "comparison"), COMPARISONS, ids=NAMES)
def test_a_verdict_can_come_out_each_way(claim: Claim, comparison: Comparison, tmp_path: Path) -> None:
    up = 1 if comparison.side == "above" else -1
    alone = Claim(**{**vars(claim), "comparisons": [replace(comparison, decides=True)]})

    def verdict_of(name: str, effect: Callable[[int], float]) -> str:
        """The verdict in a world where the effect beyond the threshold is `effect(seed)`."""

        def value(job: Job, treated: bool) -> float:
            base = 100.0 + 7 * job.seed
            if comparison.pool in ("area", "rank"):
                return pooled(comparison, job, treated, holds=effect(job.seed) * up > 0)
            if comparison.rule in ("level", "exact"):
                return comparison.threshold + effect(job.seed)
            if comparison.pool == "steps":
                return base + effect(job.seed) * treated
            if comparison.rule == "equivalence":  # an effect of 0.05 is no difference, one of -0.05 twice the bound
                return base + comparison.tolerance * (1 - effect(job.seed) / 0.05) if treated else base
            if comparison.rule == "ratio":
                return base * comparison.threshold * math.exp(effect(job.seed)) if treated else base
            threshold = 0.0 if comparison.rule == "sign" else comparison.threshold
            return base + threshold + effect(job.seed) if treated else base

        return judge(alone, world(comparison, tmp_path / name, value)).verdict

    if comparison.rule == "exact":
        assert verdict_of("true", lambda seed: comparison.tolerance / 2) == "reproduced"
        assert verdict_of("false", lambda seed: comparison.tolerance * 2 + 0.01) == "not reproduced"
    else:
        assert verdict_of("true", lambda seed: up * (0.05 + 0.001 * seed)) == "reproduced"
        assert verdict_of("false", lambda seed: -up * (0.05 + 0.001 * seed)) == "not reproduced"
        assert verdict_of("noise", lambda seed: (-1) ** seed * 0.05 * (1 + seed)) == "inconclusive"
    assert judge(alone, {}).verdict == "not run"


def test_a_claim_is_only_reproduced_if_all_of_its_comparisons_are(tmp_path: Path) -> None:
    claim = next(claim for claim in claims() if claim.id == "S8")
    evidence: Evidence = {}
    for index, job in enumerate(jobs("feedforward_lm", "laptop", str(tmp_path))):
        loss = 1.0 + 0.01 * job.seed - 0.1 * (dict(job.factors)["feedforward"] == "glu")
        evidence[job] = write_record(tmp_path / str(index), {"nonoverlapping/loss": loss})
    assert judge(claim, evidence).verdict == "reproduced"
    gelu = next(
        job for job in evidence if dict(job.factors) == {"feedforward": "mlp", "activation": "gelu", "seed": "0"}
    )
    write_atomically(evidence[gelu].folder / "status.json", to_json({"status": "failed"}))
    verdict = judge(claim, evidence)
    assert [len(finding.missing) for finding in verdict.findings] == [0, 1, 0, 0, 0, 0, 0]
    assert verdict.findings[1].effect.n == 4
    assert "1 runs are missing" in verdict.notes


def test_a_claim_names_the_pythons_that_its_records_come_from_if_there_are_several(tmp_path: Path) -> None:
    claim = next(claim for claim in claims() if claim.id == "R1")
    evidence: Evidence = {}
    for index, job in enumerate(jobs("positions", "laptop", str(tmp_path))):
        evidence[job] = write_record(tmp_path / str(index), {"nonoverlapping/loss": 1.0 + 0.01 * job.seed})
    assert judge(claim, evidence).notes == []
    used = next(job for job in evidence if dict(job.factors) == {"position": "learned", "seed": "0"})
    other = next(job for job in evidence if dict(job.factors) == {"position": "rope", "seed": "0"})
    for job, version in ((used, "3.9.18"), (other, "3.12.1")):
        evidence[job].begin(evidence[job].config, evidence[job].environment | {"python": version})
        evidence[job].finish(evidence[job].summary, {})
        evidence[job] = Record(evidence[job].folder)
    assert judge(claim, evidence).notes == ["the records come from Python 3.9.18 and 3.11.7"]  # R1 has no RoPE
    assert pythons(environments_of(evidence)) == ["3.9.18", "3.11.7", "3.12.1"]


def test_effects_are_paired_by_seed_and_by_every_other_factor(tmp_path: Path) -> None:
    claim = next(claim for claim in claims() if claim.id == "S1")
    comparison = claim.comparisons[0]
    evidence: Evidence = {}
    for index, job in enumerate(jobs(comparison.experiment, "laptop", str(tmp_path))):
        factors = dict(job.factors)
        base = 10 * job.seed + len(factors["model"])  # a large effect of what pairs must cancel
        gain = {"relu": 0.0, "silu": 1.0}.get(factors["activation"], 2.0) + 0.01 * job.seed
        evidence[job] = write_record(tmp_path / str(index), {"accuracy": base + gain})
    effect = judge(claim, evidence).findings[0].effect
    assert effect.n == 15
    assert effect.mean == pytest.approx(2.0)
    assert effect.high - effect.low < 1e-6


def test_what_does_not_decide_is_shown_and_not_counted(tmp_path: Path) -> None:
    claim = next(claim for claim in claims() if claim.id == "S2")
    shown = [comparison for comparison in claim.comparisons if not comparison.decides]
    assert len(shown) == 12
    alone = Claim(**{**vars(claim), "comparisons": [shown[0], replace(shown[0], decides=True, threshold=2)]})
    verdict = judge(alone, world(shown[0], tmp_path, lambda job, treated: 2.0))
    assert [finding.verdict for finding in verdict.findings] == ["not reproduced", "reproduced"]
    assert verdict.verdict == "reproduced"


def test_an_area_is_the_share_of_the_grid_near_the_best_of_both(tmp_path: Path) -> None:
    claim = next(claim for claim in claims() if claim.id == "S5")
    accuracy = {"0.01": 90.0, "0.1": 89.1, "1.0": 88.9}  # of Swish; one point below the best is near

    def value(job: Job, treated: bool) -> float:
        return accuracy[dict(job.factors)["optimizer.lr"]] - (0 if treated else 0.5)

    finding = judge(claim, world(claim.comparisons[0], tmp_path, value)).findings[0]
    assert (finding.treatment_mean, finding.control_mean) == pytest.approx((2 / 3, 1 / 3))
    assert finding.effect.mean == pytest.approx(1 / 3)


def test_a_share_is_counted_without_ties_and_has_an_exact_interval() -> None:
    found = estimate_share([1.0, 2.0, 0.0, -1.0, 3.0])
    assert (found.n, found.mean) == (4, 0.75)
    assert found.low == pytest.approx(stats.beta.ppf(0.025, 3, 2)) and found.high == pytest.approx(
        stats.beta.ppf(0.975, 4, 1)
    )
    assert math.isnan(estimate_share([0.0]).mean)


def test_a_rank_correlation_is_spearmans() -> None:
    assert rank_correlation([3.0, 2.0, 9.0], [1.0, 0.5, 70.0]) == pytest.approx(1)
    assert rank_correlation([3.0, 2.0, 9.0], [1.0, 2.0, 0.0]) == pytest.approx(-1)
    assert rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) == 0


def test_steps_to_the_same_loss_are_read_off_both_curves() -> None:
    slow = [(10, 5.0), (20, 4.0), (30, 3.0), (40, 2.0)]
    fast = [(10, 4.0), (20, 2.5), (30, 1.5), (40, 1.0)]
    assert steps_to_equal(fast, slow) == [25.0, 40.0]  # to 2.0, half way from 2.5 to 1.5
    assert steps_to_equal(slow, fast) == [40.0, 25.0]
    assert steps_to_equal(slow, slow) == [40.0, 40.0]
    assert all(math.isnan(steps) for steps in steps_to_equal([(10, math.nan)], slow)[:1])


def test_intervals_are_students(tmp_path: Path) -> None:
    sample = np.random.default_rng(0).normal(3, 2, 7)
    found = estimate(sample.tolist())
    expected = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    ratio = estimate_ratio(np.exp(sample).tolist())
    assert math.log(ratio.mean) == pytest.approx(sample.mean())
    assert math.isnan(estimate([1.0]).low)
    assert estimate([2.0, 2.0, 2.0]).low == 2.0


def test_the_corrected_interval_is_that_of_all_claims_at_once(tmp_path: Path) -> None:
    """Bonferroni's: of 30 claims, each at 1 - 0.05 / 30; a narrow verdict does not survive it."""
    claim = next(claim for claim in claims() if claim.id == "R11")
    comparison = next(comparison for comparison in claim.comparisons if comparison.rule == "difference")
    gains = np.array([-0.2, -0.1, -0.3, -0.1, -0.4])
    evidence = world(comparison, tmp_path, lambda job, treated: 3 + treated * gains[job.seed])
    finding = judge(replace(claim, comparisons=[comparison]), evidence, family=30).findings[0]
    expected = stats.ttest_1samp(gains, 0).confidence_interval(1 - 0.05 / 30)
    assert (finding.corrected.low, finding.corrected.high) == pytest.approx((expected.low, expected.high))
    assert (finding.verdict, finding.corrected_verdict) == ("reproduced", "inconclusive")
    assert math.isnan(finding.bootstrapped.low)


def test_the_bootstrap_is_scipys_and_asks_for_eight_values() -> None:
    sample = np.random.default_rng(1).exponential(2, 12)
    found = bootstrap(sample.tolist())
    expected = stats.bootstrap((sample,), np.mean, n_resamples=20_000, rng=np.random.default_rng(5)).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=0.1)
    assert found.high - found.mean > found.mean - found.low  # skewed as the sample is, where Student's is not
    assert math.isnan(bootstrap(sample[:7].tolist()).low) and math.isnan(bootstrap([1.0] * 9).low)


@pytest.mark.parametrize("effect", [0.3, -0.3])
def test_the_pairs_that_a_decision_needs_are_as_many_as_decide(effect: float) -> None:
    """With the mean and the spread of four values, so many exclude 0 and one fewer do not."""
    sample = effect + np.array([-0.5, 0.5, -0.5, 0.5])
    needed = values_needed(estimate(sample.tolist()), abs(effect))
    assert needed
    deviation = sample.std(ddof=1)
    for n, decided in ((needed, True), (needed - 1, False)):
        assert (stats.t.ppf(0.975, n - 1) * deviation / math.sqrt(n) < abs(effect)) == decided
    assert values_needed(estimate([1.0]), 1.0) is None
    assert values_needed(estimate([-1.0, 1.0]), 0.0) is None


def test_the_ledger_is_strict_json(tmp_path: Path) -> None:
    text = json.dumps(as_json([judge(claim, {}) for claim in claims()], "laptop"), allow_nan=False)
    assert json.loads(text)["claims"][0]["verdict"] == "not run"


def test_a_claim_with_an_unknown_field_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "x1.yaml"
    file.write_text("id: X1\nstatment: typo\n")
    with pytest.raises(ClaimError, match=r"x1\.yaml.*statment"):
        read_claim(file)


def test_a_job_says_what_runs_it() -> None:
    job = Job("positions", "smoke", "outputs", (("position", "rope"), ("seed", "1")))
    assert job.overrides == ["experiment=positions", "scale=smoke", "outputs=outputs", "position=rope", "seed=1"]
