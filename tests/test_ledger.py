"""Rules and verdicts: every claim's comparisons come out each way when the records do."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from experiments.ledger.claims import Claim, ClaimError, Comparison, claims, read_claim
from experiments.ledger.curves import rank_correlation, steps_to_equal
from experiments.ledger.evidence import Evidence, environments_of, fits, pythons
from experiments.ledger.runs import last_look
from experiments.ledger.verdicts import as_json, judge
from experiments.recording.record import Record, to_json
from experiments.sweeps.grid import Job, jobs
from tasks.data.source import write_atomically
from tests.conftest import CONFIGURATION, ENVIRONMENT


def write_record(folder: Path, metrics: dict[str, float], identity: Mapping[str, str] = MappingProxyType({})) -> Record:
    """A finished record with these metrics at its first and last evaluation."""
    record = Record(folder)
    record.folder.mkdir(parents=True, exist_ok=True)
    with open(record.metrics_file, "w") as rows:  # falls from 200 to the last value
        for step in range(10, 110, 10):
            row = {name: 200 + (value - 200) * step / 100 for name, value in metrics.items()}
            rows.write(json.dumps({"step": step, **row}) + "\n")
    record.begin(CONFIGURATION, {**ENVIRONMENT, **identity})
    evaluations = {"1": metrics, "2": metrics}
    summary = {"metrics": metrics, "evaluations": evaluations, "parameters": 1, "seconds": 1.0, "steps": 2}
    record.finish(summary | metrics, {})
    return record


def world(comparison: Comparison, folder: Path, value: Callable[[Job], float], seeds: int = 0) -> Evidence:
    """Records for the jobs that a comparison is about, whose metric is `value(job)`."""
    evidence = {}
    for index, job in enumerate(jobs(comparison.experiment, "laptop", str(folder), seeds)):
        if any(fits(comparison, levels, job) for levels in comparison.sides):
            counted = {comparison.trials: 50.0} if isinstance(comparison.trials, str) and comparison.trials else {}
            evidence[job] = write_record(folder / str(index), {comparison.metric: value(job)} | counted)
    return evidence


def pooled(comparison: Comparison, job: Job, treated: bool, holds: bool) -> float:
    """The metric of one of several runs that become one number, in a world where the claim holds or does not."""
    levels = [dict(job.factors)[name] for name in comparison.over]
    if comparison.pool == "rank":  # of every second seed, the two best in the other order
        order = sorted(comparison.figures, key=comparison.figures.__getitem__, reverse=not holds)
        swapped = [*order[1::-1], *order[2:]] if job.seed % 2 else order
        return float(swapped.index(levels[0]))
    trains = treated == holds or levels == ["0.1", "1"] or (job.seed % 2 and levels == ["0.1", "5"])
    return 90.0 if trains else 10.0  # one side everywhere, the other one in a part of the grid


COMPARISONS = [(claim, comparison) for claim in claims() for comparison in claim.comparisons]
NAMES = [f"{claim.id}: {comparison.label}" for claim, comparison in COMPARISONS]


@pytest.mark.slow
@pytest.mark.parametrize(("claim", "comparison"), COMPARISONS, ids=NAMES)
def test_a_comparison_can_come_out_each_way(claim: Claim, comparison: Comparison, tmp_path: Path) -> None:
    up = 1 if comparison.side == "above" else -1
    alone = replace(claim, comparisons=[replace(comparison, decides=True, given="")])
    smallest = comparison.smallest or 0.0
    is_share = comparison.rule == "sign" or bool(comparison.trials)
    seeds = last_look() if is_share else 0

    def outcome_of(name: str, effect: Callable[[int], float]) -> tuple[str, str]:
        """Outcome and verdict in a world whose effect beyond the threshold is `effect(seed)` smallest effects."""

        def value(job: Job) -> float:
            size, base, treated = effect(job.seed), 100.0 + 7 * job.seed, fits(comparison, comparison.treatment, job)
            if comparison.pool in ("area", "rank"):
                return pooled(comparison, job, treated, holds=size * up > 0)
            if comparison.trials:
                return 0.99 if (size > 0) == treated else 0.01
            if not comparison.control:
                return comparison.threshold + size * (comparison.tolerance + 0.01 if comparison.is_exact else smallest)
            if not treated:
                return base
            if comparison.rule == "ratio":
                return base + 10 * size if comparison.pool == "steps" else base * comparison.threshold * smallest**size
            return base + (0 if comparison.rule == "sign" else comparison.threshold) + size * smallest

        verdict = judge(alone, world(comparison, tmp_path / name, value, seeds))
        return verdict.findings[0].outcome, verdict.verdict

    claimed = outcome_of("claimed", lambda seed: 0 if comparison.rule == "exact" else up * (3 + 0.01 * seed))
    opposite = outcome_of("opposite", lambda seed: -up * (3 + 0.01 * seed))
    if comparison.is_exact:
        assert claimed == ("as claimed", "reproduced") and opposite == ("not as claimed", "not reproduced")
        return
    nothing = ("no difference that matters", "not reproduced")
    if comparison.rule == "equivalence":
        assert claimed == opposite == ("the opposite", "not reproduced")
        nothing = ("as claimed", "reproduced")
    else:
        assert claimed == ("as claimed", "reproduced") and opposite == ("the opposite", "not reproduced")
    if comparison.pool not in ("area", "rank") and not is_share:
        assert outcome_of("nothing", lambda seed: 0.01 * (seed - 1.5)) == nothing
        assert outcome_of("noise", lambda seed: (-1) ** seed * 3 * (1 + seed)) == ("undecided", "inconclusive")
    assert judge(alone, {}).verdict == "not run"


def test_a_claim_is_only_reproduced_if_all_of_its_comparisons_are(tmp_path: Path) -> None:
    claim = next(claim for claim in claims() if claim.id == "S8")
    evidence: Evidence = {}
    noise = np.random.default_rng(0).normal(size=1000)
    for index, job in enumerate(jobs("feedforward_lm", "laptop", str(tmp_path))):
        loss = 1.0 + 0.01 * job.seed - 0.1 * (dict(job.factors)["feedforward"] == "glu") + 0.001 * noise[index]
        evidence[job] = write_record(tmp_path / str(index), {"nonoverlapping/loss": loss})
    assert judge(claim, evidence).verdict == "reproduced"
    gelu = next(
        job for job in evidence if dict(job.factors) == {"feedforward": "mlp", "activation": "gelu", "seed": "0"}
    )
    write_atomically(evidence[gelu].folder / "status.json", to_json({"status": "failed"}))
    verdict = judge(claim, evidence)
    assert [len(finding.missing) for finding in verdict.findings] == [0, 1, 0, 0, 0, 0, 0]
    assert (verdict.findings[1].effect.n, verdict.findings[1].look, verdict.findings[1].next_look) == (3, 0, 4)
    assert (verdict.findings[1].outcome, verdict.verdict) == ("undecided", "inconclusive")
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
        gain = {"relu": 0.0, "silu": 1.0}.get(factors["activation"], 2.0 + 0.001 * job.seed)
        evidence[job] = write_record(tmp_path / str(index), {"accuracy": base + gain})
    effect = judge(claim, evidence).findings[0].effect
    assert effect.n == 4  # seeds, each of which is the mean of three networks
    assert effect.mean == pytest.approx(2.0015)
    assert 0 < effect.high - effect.low < 0.01


def test_what_does_not_decide_is_shown_and_not_counted(tmp_path: Path) -> None:
    claim = next(claim for claim in claims() if claim.id == "S2")
    shown = [comparison for comparison in claim.comparisons if not comparison.decides]
    assert len(shown) == 12
    deciding = replace(shown[0], decides=True)
    rows = [shown[0], replace(deciding, given="by construction"), replace(deciding, threshold=2)]
    verdict = judge(replace(claim, comparisons=rows), world(shown[0], tmp_path, lambda job: 2.0))
    assert [finding.outcome for finding in verdict.findings] == ["not as claimed", "not as claimed", "as claimed"]
    assert verdict.verdict == "reproduced"


def test_an_area_is_the_share_of_the_grid_near_the_best_of_both(tmp_path: Path) -> None:
    claim = next(claim for claim in claims() if claim.id == "S5")
    accuracy = {"0.01": 90.0, "0.1": 89.1, "1.0": 88.9}  # of Swish; one point below the best is near

    def value(job: Job) -> float:
        treated = dict(job.factors)["activation"] == "swish"
        return accuracy[dict(job.factors)["optimizer.lr"]] - (0 if treated else 0.5)

    finding = judge(claim, world(claim.comparisons[0], tmp_path, value)).findings[0]
    assert (finding.treatment_mean, finding.control_mean) == pytest.approx((2 / 3, 1 / 3))
    assert finding.effect.mean == pytest.approx(1 / 3)


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


def test_the_ledger_is_strict_json(tmp_path: Path) -> None:
    text = json.dumps(as_json([judge(claim, {}) for claim in claims()], "laptop"), allow_nan=False)
    assert json.loads(text)["claims"][0]["verdict"] == "not run"


def test_a_claim_with_an_unknown_field_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "x1.yaml"
    file.write_text("id: X1\nstatment: typo\n")
    with pytest.raises(ClaimError, match=r"x1\.yaml.*statment"):
        read_claim(file)


CLAIM = """id: X1
idea: RoPE
statement: s
source: s
paper: p
differs: d
looks: {4: 0.02, 8: 0.03}
defaults: {experiment: positions, metric: m, threshold: 0, treatment: {position: rope}}
comparisons:
  - {label: a, rule: difference, smallest: 0.1, control: {position: learned}}
  - {label: b, rule: ratio, smallest: 1.1, control: {position: learned}}
"""


@pytest.mark.parametrize(
    ("written", "instead", "message"),
    [
        ("{4: 0.02, 8: 0.03}", "{8: 0.02, 4: 0.03}", r"line 7: looks: the seeds of looks must increase .* not 8, 4"),
        ("{4: 0.02, 8: 0.03}", "{1: 0.02, 4: 0.03}", r"line 7: looks: the seeds of looks must increase from 2 on"),
        ("{4: 0.02, 8: 0.03}", "{4: 0.02, 8: 0.02}", r"line 7: looks: .* must add up to 0.05, not 0.04"),
        ("looks: {4: 0.02, 8: 0.03}\n", "", r"line 1: looks: looks are missing"),
        ("difference, smallest: 0.1", "difference", r"line 10: comparisons.0.smallest: the smallest effect .* missing"),
        ("smallest: 1.1", "smallest: 0.9", r"line 11: comparisons.1.smallest: .* above 1 for a ratio"),
        ("rule: ratio", "rule: quotient", r"line 11: comparisons.1.rule"),
        ("label: a, ", "label: a, lable: b, ", r"line 10: comparisons.0.lable"),
    ],
)
def test_a_wrong_claim_is_refused_with_its_line(written: str, instead: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "x1.yaml"
    file.write_text(CLAIM)
    assert read_claim(file).looks == {4: 0.02, 8: 0.03}
    file.write_text(CLAIM.replace(written, instead))
    with pytest.raises(ClaimError, match=rf"x1\.yaml, {message}") as raised:
        read_claim(file)
    assert "\n" not in str(raised.value)


def test_a_job_says_what_runs_it() -> None:
    job = Job("positions", "smoke", "outputs", (("position", "rope"), ("seed", "1")))
    assert job.overrides == ["experiment=positions", "scale=smoke", "outputs=outputs", "position=rope", "seed=1"]
