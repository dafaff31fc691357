"""Rules and verdicts: every claim's rule comes out each way when the records do."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments.claims import Claim, ClaimError, Comparison, claims, read_claim
from experiments.grid import Job, jobs
from experiments.ledger import Evidence, as_json, judge
from experiments.records import Record, to_json
from experiments.statistics import estimate, estimate_ratio
from tasks.data.source import write_atomically

ENVIRONMENT = {"code": "c", "data": "d", "processor": "p", "libraries": {"torch": "t"}}


def write_record(folder: Path, metrics: dict[str, float], code: str = "c") -> Record:
    """A finished record with these metrics at its first and last evaluation."""
    record = Record(folder)
    record.begin({"name": "made up", "scale": "laptop", "data": {}}, ENVIRONMENT | {"code": code})
    evaluations = {"1": metrics, "2": metrics}
    record.finish({"metrics": metrics, "evaluations": evaluations, "parameters": 1, "seconds": 1.0} | metrics, {})
    return record


def world(comparison: Comparison, folder: Path, value) -> Evidence:
    """Records for all jobs of a comparison's experiment; `value(treated, seed)` is their metric."""
    evidence = {}
    for index, job in enumerate(jobs(comparison.experiment, "laptop", str(folder))):
        factors = dict(job.factors)
        treated = all(factors.get(name) == str(level) for name, level in comparison.treatment.items())
        metrics = {comparison.metric: value(treated, job.seed)}
        evidence[job] = write_record(folder / str(index), metrics)
    return evidence


COMPARISONS = [(claim, comparison) for claim in claims() for comparison in claim.comparisons]
NAMES = [f"{claim.id}: {comparison.label}" for claim, comparison in COMPARISONS]


@pytest.mark.parametrize(("claim", "comparison"), COMPARISONS, ids=NAMES)
def test_a_verdict_can_come_out_each_way(claim: Claim, comparison: Comparison, tmp_path: Path) -> None:
    up = 1 if comparison.side == "above" else -1
    alone = Claim(**{**vars(claim), "comparisons": [comparison]})

    def verdict_of(name: str, effect) -> str:
        """The verdict in a world where the effect beyond the threshold is `effect(seed)`."""

        def value(treated: bool, seed: int) -> float:
            base = 100.0 + 7 * seed
            if comparison.rule in ("level", "exact"):
                return comparison.threshold + effect(seed)
            if comparison.rule == "ratio":
                return base * comparison.threshold * math.exp(effect(seed)) if treated else base
            return base + comparison.threshold + effect(seed) if treated else base

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
    evidence = world(claim.comparisons[0], tmp_path, lambda treated, seed: 1.0 + 0.01 * seed - 0.1 * treated)
    assert judge(claim, evidence).verdict == "reproduced"
    gelu = next(
        job for job in evidence if dict(job.factors) == {"feedforward": "mlp", "activation": "gelu", "seed": "0"}
    )
    write_atomically(evidence[gelu].folder / "status.json", to_json({"status": "failed"}))
    verdict = judge(claim, evidence)
    assert [len(finding.missing) for finding in verdict.findings] == [0, 1, 0]
    assert verdict.findings[1].effect.n == 2
    assert "1 runs are missing" in verdict.notes


def test_effects_are_paired_by_seed_and_by_every_other_factor(tmp_path: Path) -> None:
    claim = next(claim for claim in claims() if claim.id == "S1")
    comparison = claim.comparisons[0]
    evidence: Evidence = {}
    for index, job in enumerate(jobs(comparison.experiment, "laptop", str(tmp_path))):
        factors = dict(job.factors)
        base = 10 * job.seed + int(factors["model.depth"])  # a large effect of what pairs must cancel
        gain = {"relu": 0.0, "silu": 1.0, "swish": 2.0}[factors["activation"]] + 0.01 * job.seed
        evidence[job] = write_record(tmp_path / str(index), {"accuracy": base + gain})
    effect = judge(claim, evidence).findings[0].effect
    assert effect.n == 10
    assert effect.mean == pytest.approx(2.0)
    assert effect.high - effect.low < 1e-6


def test_records_of_different_code_are_told(tmp_path: Path) -> None:
    claim = next(claim for claim in claims() if claim.id == "S8")
    evidence = world(claim.comparisons[0], tmp_path, lambda treated, seed: 1.0 - 0.1 * treated + 0.001 * seed)
    one = next(iter(evidence))
    evidence[one] = write_record(evidence[one].folder, {"nonoverlapping/loss": 1.0}, code="other")
    assert any("2 versions of code" in note for note in judge(claim, evidence).notes)


def test_intervals_are_students(tmp_path: Path) -> None:
    sample = np.random.default_rng(0).normal(3, 2, 7)
    found = estimate(sample.tolist())
    expected = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    ratio = estimate_ratio(np.exp(sample).tolist())
    assert math.log(ratio.mean) == pytest.approx(sample.mean())
    assert math.isnan(estimate([1.0]).low)
    assert estimate([2.0, 2.0, 2.0]).low == 2.0


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
