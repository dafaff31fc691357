"""Records that the ledger excludes, seeds that it adds, and claims about runs that do not exist."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.config.errors import RecordError
from experiments.ledger.claims import ClaimError, check_levels, claims, compared_factors
from experiments.ledger.evidence import Evidence
from experiments.ledger.excluded_records import excluded_records
from experiments.ledger.runs import gather, last_look, next_look
from experiments.ledger.verdicts import Verdict, judge
from experiments.recording.contents import FORMAT
from experiments.recording.record import Record, run_id, to_json
from experiments.sweeps.grid import jobs
from tasks.data.source import write_atomically
from tests.conftest import Program
from tests.test_ledger import write_record

EXPERIMENT = "feedforward_lm"
METRIC = "nonoverlapping/loss"


def written(outputs: Path, experiment: str = EXPERIMENT, **changes: str) -> Record:
    """A finished record of a run of the experiment's sweep, or of one that differs by some of what determines it."""
    determined = jobs(EXPERIMENT, "laptop", str(outputs))[0].spec().record.identity | changes
    record = Record(outputs / "runs" / experiment / run_id(determined), determined)
    return write_record(record.folder, {METRIC: 1.0}, determined)


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    """The ledger's jobs of one experiment."""
    return {job: job.spec().record for job in jobs(EXPERIMENT, "laptop", str(tmp_path))}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"code": "older"}, r"^different code: older, not \w+$"),
        ({"torch": "1.0"}, r"^different torch: 1.0, not [\d.]+"),
        ({"data": "elsewhere", "precision": "fp8"}, "different data: elsewhere, not .*; different precision: fp8"),
        ({"settings": "own"}, "no run of the ledger has these settings"),
        ({"experiment": "renamed"}, "no claim uses this experiment"),
    ],
)
def test_a_record_of_another_kind_is_excluded(
    changes: dict[str, str], said: str, evidence: Evidence, tmp_path: Path
) -> None:
    other = written(tmp_path, **changes)
    (group,) = excluded_records(evidence, "laptop", tmp_path)
    assert group.folders == [str(other.folder)]
    assert re.search(said, group.reason)


def test_a_record_of_the_ledger_of_another_scale_or_unfinished_is_not(evidence: Evidence, tmp_path: Path) -> None:
    used = written(tmp_path)
    assert used.folder in {record.folder for record in evidence.values()}
    written(tmp_path, scale="smoke", settings="of smoke")
    written(tmp_path, settings="unfinished").set_status("interrupted")
    assert excluded_records(evidence, "laptop", tmp_path) == []


@pytest.mark.parametrize("name", ["status.json", "summary.json", "environment.json", "metrics.jsonl"])
def test_a_record_cut_short_is_excluded_and_run_again(name: str, evidence: Evidence, tmp_path: Path) -> None:
    record = written(tmp_path)
    assert record.finished
    file = record.folder / name
    file.write_bytes(file.read_bytes()[:-9])
    assert record.status == "damaged" and not record.finished
    (group,) = excluded_records(evidence, "laptop", tmp_path)
    assert group.reason.startswith(name)
    record.begin({}, {})
    assert record.status == "running" and not record.metrics_file.exists()


def test_a_record_edited_by_hand_is_damaged(tmp_path: Path) -> None:
    record = written(tmp_path)
    summary = record.read("summary.json")
    write_atomically(record.folder / "summary.json", to_json(summary | {"parameters": 2}))
    assert record.damage == "summary.json was changed after the run finished"
    (record.folder / "summary.json").unlink()
    assert record.damage == "summary.json is missing"


def test_a_record_of_a_newer_version_is_excluded_and_not_changed(evidence: Evidence, tmp_path: Path) -> None:
    record = written(tmp_path)
    status = record.read("status.json") | {"format": FORMAT + 1}
    write_atomically(record.folder / "status.json", to_json(status))
    (group,) = excluded_records(evidence, "laptop", tmp_path)
    assert group.reason.startswith("newer version of this program")
    with pytest.raises(RecordError, match="newer version"):
        record.begin({}, {})
    assert record.read("status.json") == status


def test_excluded_records_are_reported_with_the_ledger(program: Program, tmp_path: Path) -> None:
    written(tmp_path, experiment="gone", scale="smoke")
    ended = program("--scale", "smoke", "--outputs", str(tmp_path), "--no-runs", module="experiments.reproduce")
    assert ended.returncode == 0, ended.stderr
    assert "excluded: 1 of gone, no claim uses this experiment" in ended.stdout
    assert "no finished run of scale smoke" in " ".join(ended.stdout.split())
    ledger = json.loads((tmp_path / "report" / "ledger.json").read_text())
    assert ledger["excluded_records"][0]["experiment"] == "gone"
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Excluded records" in page and ledger["excluded_records"][0]["folders"][0] in page


def write_sweep(evidence: Evidence, effect: float, noise: float) -> None:
    """Write the records of the sweep's own seeds, with gated feed-forwards better by `effect`, up to noise."""
    for job, record in evidence.items():
        if not job.added:
            gain = (effect + noise * (-1) ** job.seed) * (dict(job.factors)["feedforward"] == "glu")
            write_record(record.folder, {METRIC: 3.0 - gain}, record.identity)


def test_seeds_are_added_up_to_the_next_look_of_what_is_undecided(tmp_path: Path) -> None:
    claim = next(claim for claim in claims() if claim.id == "S8")

    def evidence_in(folder: str) -> Evidence:
        return {job: job.spec().record for job in jobs(EXPERIMENT, "laptop", str(tmp_path / folder), last_look())}

    def seeds(verdict: Verdict, evidence: Evidence) -> set[int]:
        return {job.seed for job in next_look([verdict], evidence, [EXPERIMENT])}

    evidence = evidence_in("decided")
    assert {job.seed for job in evidence if job.added} == {*range(4, 16)}
    write_sweep(evidence, effect=0.1, noise=0.01)
    assert seeds(judge(claim, evidence), evidence) == set()
    evidence = evidence_in("undecided")
    write_sweep(evidence, effect=0.0, noise=0.1)
    verdict = judge(claim, evidence)
    assert verdict.verdict == "inconclusive" and not any(finding.missing for finding in verdict.findings)
    wanted = next_look([verdict], evidence, [EXPERIMENT])
    assert {job.seed for job in wanted} == {4, 5, 6, 7}
    assert next_look([verdict], evidence, ["gates"]) == []
    for job in wanted[:-1]:
        write_record(evidence[job].folder, {METRIC: 3.0}, evidence[job].identity)
    assert wanted[-1] in next_look([judge(claim, evidence)], evidence, [EXPERIMENT])  # no look in between
    write_record(evidence[wanted[-1]].folder, {METRIC: 3.0}, evidence[wanted[-1]].identity)
    assert seeds(judge(claim, evidence), evidence) == {*range(8, 16)}


@pytest.mark.slow
def test_seeds_that_were_added_are_found_again(tmp_path: Path) -> None:
    """Whoever ran a seed beyond the sweep's own, with the same settings: the ledger takes it in."""
    compared = compared_factors(claims())
    added = [job for job in jobs("masked_lm", "smoke", str(tmp_path), 2, compared) if job.added]
    assert {job.seed for job in added} == {1}
    assert not any(job.added for job in gather("smoke", str(tmp_path)))
    record = added[0].spec().record
    write_record(record.folder, {METRIC: 1.0}, record.identity)
    found = {job: one for job, one in gather("smoke", str(tmp_path)).items() if job.added}
    assert set(found) == set(added)
    assert [job for job, one in found.items() if one.finished] == [added[0]]


def test_a_claim_about_a_level_that_no_run_has_is_refused_by_name() -> None:
    claim = claims()[0]
    known = {"activation_images": {"activation": {"relu", "silu", "swish"}, "model": {"resnet"}}}
    wrong = replace(claim, comparisons=[replace(claim.comparisons[0], treatment={"activation": "swich"})])
    with pytest.raises(
        ClaimError, match="S1: activation_images has no activation=swich; the runs have relu, silu, swish"
    ):
        check_levels([wrong], known)
    with pytest.raises(ClaimError, match="no act=relu; no such factor"):
        check_levels([replace(wrong, comparisons=[replace(claim.comparisons[0], treatment={"act": "relu"})])], known)
