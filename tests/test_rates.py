"""Learning rates are chosen by validation, with equal budgets, on seeds that judge nothing."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.ledger.claims import claims, compared_factors
from experiments.ledger.excluded_records import excluded_records
from experiments.ledger.runs import deciding_of, gather, missing_trials
from experiments.ledger.tuning import FIRST_SEED, GRID, WIDEST, Tuning, tunings_of
from experiments.ledger.verdicts import NOT_REPRODUCED, REPRODUCED, judge
from experiments.recording.record import Record
from experiments.sweeps.grid import Job, jobs
from tests.test_ledger import write_record

METRIC = "nonoverlapping/loss"


def level(tmp_path: Path, position: str = "rope") -> tuple[Job, Tuning]:
    known = jobs("positions", "laptop", str(tmp_path))
    own = [job for job in known if job.seed == 0 and dict(job.factors)["position"] == position]
    return own[0], tunings_of(own, {"position"})[own[0]]


def run(trials: list[Job], tmp_path: Path, value: Callable[[float], float]) -> None:
    for job in trials:
        record = job.spec().record
        write_record(record.folder, {METRIC: value(float(job.rate))}, record.identity)


def tuned(tmp_path: Path, value: Callable[[float], float]) -> tuple[Tuning, int]:
    """A level whose trials came out like this, and how many there were."""
    count = 0
    while True:
        _, tuning = level(tmp_path)
        if not tuning.missing:
            return tuning, count
        count += len(tuning.missing)
        run(tuning.missing, tmp_path, value)


def test_trials_are_scored_on_validation_documents_and_have_seeds_of_their_own(tmp_path: Path) -> None:
    job, tuning = level(tmp_path)
    assert [float(trial.rate) for trial in tuning.missing] == pytest.approx([0.000949, 0.003, 0.00949])
    for trial in tuning.missing:
        assert trial.seed >= FIRST_SEED and "task.split=validation" in trial.overrides
        assert trial.spec().record.folder != job.spec().record.folder
    judged = {each.seed for each in jobs("positions", "laptop", str(tmp_path), max(claims()[0].looks))}
    assert not judged & {trial.seed for trial in tuning.missing}


def test_the_best_rate_within_the_grid_is_chosen(tmp_path: Path) -> None:
    tuning, count = tuned(tmp_path, lambda rate: abs(math.log10(rate / 0.003)))
    assert (tuning.chosen, count) == (0, len(GRID))


@pytest.mark.parametrize(("best", "chosen"), [(0.03, 2), (0.0003, -2)])
def test_the_grid_grows_where_its_best_rate_is_at_an_edge(tmp_path: Path, best: float, chosen: int) -> None:
    tuning, count = tuned(tmp_path, lambda rate: abs(math.log10(rate / best)))
    assert tuning.chosen == chosen and {chosen - 1, chosen, chosen + 1} <= set(tuning.tried)
    assert count == len(GRID) + 2


def test_the_grid_ends_somewhere(tmp_path: Path) -> None:
    tuning, _ = tuned(tmp_path, lambda rate: -rate)
    assert tuning.chosen == WIDEST


def test_a_training_that_diverges_is_not_chosen(tmp_path: Path) -> None:
    tuning, _ = tuned(tmp_path, lambda rate: math.nan if rate > 0.002 else 1.0)
    assert tuning.chosen is not None and float(tuning.rate(tuning.chosen)) < 0.002


@pytest.mark.slow
def test_every_level_that_decides_has_the_same_budget_and_others_none(tmp_path: Path) -> None:
    evidence = gather("laptop", str(tmp_path))
    trials = missing_trials(evidence, ["positions"])
    positions = {dict(job.factors)["position"] for job in deciding_of(jobs("positions", "laptop", ""))}
    assert positions == {"learned", "sinusoidal", "relative_bias", "alibi", "rope"}
    assert len(trials) == len(GRID) * len(positions)
    of_positions = [job for job in evidence if job.experiment == "positions"]
    assert {dict(job.factors)["position"] for job in of_positions} == {"none", "relative_shaw", "relative_xl"}
    assert {job.seed for job in of_positions} == {0}  # of what decides nothing


@pytest.mark.slow
def test_judged_runs_have_the_chosen_rate_and_the_ledger_shows_it(tmp_path: Path) -> None:
    best = {"learned": 0.003, "sinusoidal": 0.00949}

    def trial(job: Job) -> float:
        rate = best.get(dict(job.factors)["position"], 0.003)
        return 3 + abs(math.log10(float(job.rate) / rate)) + (0.5 if rate == 0.00949 else 0)

    while trials := missing_trials(gather("laptop", str(tmp_path)), ["positions"]):
        for job in trials:
            record = job.spec().record
            write_record(record.folder, {METRIC: trial(job)}, record.identity)
    evidence = gather("laptop", str(tmp_path))
    for job, record in evidence.items():
        if job.experiment == "positions":
            worse = 0.2 * (dict(job.factors)["position"] == "sinusoidal")
            loss = 3 + worse + 0.001 * (job.seed * 7 % 5) * (worse > 0)
            write_record(record.folder, {METRIC: loss, "train/loss": loss}, record.identity)
    evidence = gather("laptop", str(tmp_path))
    finding = judge(next(claim for claim in claims() if claim.id == "R1"), evidence).findings[0]
    assert finding.rates == {"learned": "0.003", "sinusoidal": "0.00949"} and finding.effect.n == 4
    assert finding.by_rate["chosen"].mean == pytest.approx(-0.5)
    assert finding.by_rate["shipped"].mean == pytest.approx(-1.0, abs=1e-3)
    assert finding.by_rate["half a decade up"].mean == pytest.approx(-0.5, abs=1e-3)
    for job, record in evidence.shifted["half a decade up"].items():
        loss = 3 + 0.001 * (job.seed * 7 % 5) * (dict(job.factors)["position"] == "learned")
        write_record(record.folder, {METRIC: loss, "train/loss": loss}, record.identity)
    assert not [group for group in excluded_records(evidence, "laptop", tmp_path) if group.experiment == "positions"]
    assert {float(job.rate) for job in evidence.shifted["half a decade up"]} == {0.00949, 0.03}
    verdict = judge(next(claim for claim in claims() if claim.id == "R1"), gather("laptop", str(tmp_path)))
    assert verdict.verdict == NOT_REPRODUCED and verdict.by_rate == {"half a decade up": REPRODUCED}
    assert "half a decade up in learning rate: reproduced, so it turns over" in verdict.notes
    shifted = verdict.findings[0].by_rate["half a decade up"]
    assert (
        shifted.n == 4
        and shifted.low < shifted.mean < shifted.high
        and shifted.mean == pytest.approx(0.00175, abs=1e-6)
    )


@pytest.mark.slow
def test_nothing_is_tuned_at_smoke_scale(tmp_path: Path) -> None:
    evidence = gather("smoke", str(tmp_path))
    assert evidence.tunings == [] and all(not job.rate for job in evidence)


@pytest.mark.parametrize("experiment", compared_factors(claims()))
def test_what_is_tuned_has_its_metric_and_a_way_to_validate(experiment: str, tmp_path: Path) -> None:
    own = deciding_of(jobs(experiment, "laptop", str(tmp_path)))[:1]
    for tuning in tunings_of(own, set()).values() if own else ():
        assert tuning.goal in ("minimize", "maximize") and isinstance(tuning.record(0, FIRST_SEED), Record)
