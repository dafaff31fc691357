"""`make dashboards` from made-up records: what the specifications hold, and what arrives at a W&B server."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import dashboards
from experiments.ledger.claims import claims
from experiments.ledger.evidence import Evidence
from experiments.ledger.runs import gather
from experiments.ledger.verdicts import judge
from experiments.recording.record import Record, to_json
from experiments.report.figures.registry import title
from experiments.report.runs import finished_runs
from experiments.report.wandb.report import escaped, report
from experiments.report.wandb.workspace import specification, workspace
from experiments.tracking.wandb_run import Tracker
from tasks.data.source import write_atomically
from tests.conftest import CONFIGURATION, ROOT
from tests.loopback import ENTITY, Server
from tests.made_up import HOSTILE, made_up, write

pytestmark = pytest.mark.slow

Spec = Any
PROJECT = "a-project-of-theirs"


def boards(evidence: Evidence) -> tuple[Spec, Spec]:
    """The specifications of the workspace and of the report."""
    verdicts, runs = [judge(claim, evidence) for claim in claims()], finished_runs(evidence)
    described = (verdicts, runs, "laptop", "", "project")
    return specification(workspace(*described)), specification(report(*described))


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Made-up records, those of passkeys with their grid."""
    made = made_up(tmp_path_factory.mktemp("outputs"))
    for job, record in made.items():
        if job.experiment == "passkey":
            cells = [{"length": 512, "depth": "start", "digits": 1.0, "text": HOSTILE}]
            write_atomically(record.folder / "tables.json", to_json({"retrieval": cells}))
            record.set_status("finished")
    return made


@pytest.fixture(scope="module")
def specs(evidence: Evidence) -> tuple[Spec, Spec]:
    return boards(evidence)


def sections(spec: Spec) -> dict[str, list[Spec]]:
    found = spec["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in found}


def of_kind(panels: list[Spec], kind: str) -> list[Spec]:
    return [panel["config"] for panel in panels if panel["viewType"] == kind]


def markdown(spec: Spec) -> list[str]:
    """The Markdown of a workspace's panels or of a report's blocks."""
    blocks = spec["spec"].get("blocks")
    if blocks:
        return [block["content"] for block in blocks if block["type"] == "markdown-block"]
    return [panel["value"] for panels in sections(spec).values() for panel in of_kind(panels, "Markdown Panel")]


def test_each_experiment_has_a_section_that_is_grouped_by_its_own_factors(
    evidence: Evidence, specs: tuple[Spec, Spec]
) -> None:
    board = sections(specs[0])
    for experiment, runs in finished_runs(evidence).items():
        if not runs:
            continue
        panels = board[title(experiment)]
        assert len(of_kind(panels, "Run Comparer")) == 1
        drawn = of_kind(panels, "Run History Line Plot") + of_kind(panels, "Bar Chart")
        assert of_kind(panels, "Bar Chart")
        keys = {panel["groupBy"] for panel in drawn if "groupBy" in panel}
        factors = {name.rpartition(".")[2] for run in runs for name in run.factors if name != "seed"}
        wanted = factors | {"condition"} if len(factors) > 1 else factors
        assert keys == ({f"factors.value.{experiment}.{name}" for name in wanted} or {"group"})
        assert bool(of_kind(panels, "Parallel Coordinates Plot")) == (len(factors) > 1)
    curves = of_kind(board[title("memory_lm")], "Run History Line Plot")
    assert [(curve["metrics"], curve["groupArea"]) for curve in curves] == [(["train/loss"], "minmax")]


def test_memory_passkeys_gates_and_sweeps_have_panels_of_their_own(specs: tuple[Spec, Spec]) -> None:
    board = sections(specs[0])
    (scatter,) = of_kind(board[title("memory_lm")], "Scatter Plot")
    assert (scatter["xAxis"], scatter["yAxis"]) == ("summary:state_floats", "summary:nonoverlapping/perplexity")
    (grid,) = of_kind(board[title("passkey")], "Weave")
    assert '"retrieval"' in json.dumps(grid)
    assert any(
        curve["metrics"] == ["gates/shares"] for curve in of_kind(board[title("gates")], "Run History Line Plot")
    )
    (sweep,) = of_kind(board[title("activation_images")], "Parallel Coordinates Plot")
    axes = [column["accessor"] for column in sweep["columns"]]
    factors = ["config:factors.value.activation_images.activation", "config:model.value.depth"]
    assert axes[:2] == factors and "summary:accuracy" in axes


def test_the_report_holds_every_claim_with_its_figures_and_verdict(
    evidence: Evidence, specs: tuple[Spec, Spec]
) -> None:
    texts = markdown(specs[1])
    headings = [
        "".join(child["text"] for child in block["children"])
        for block in specs[1]["spec"]["blocks"]
        if block["type"] == "heading"
    ]
    verdicts = [judge(claim, evidence) for claim in claims()]
    assert {verdict.verdict for verdict in verdicts} >= {"reproduced", "inconclusive", "not run"}
    for verdict in verdicts:
        assert f"{verdict.claim.id}: {verdict.verdict}" in headings
        row = f"| **{verdict.claim.id}** | {escaped(verdict.claim.statement)} | **{verdict.verdict}** |"
        assert row in texts[0]
        (account,) = (text for text in texts if text.startswith(f"**{escaped(verdict.claim.statement)}**"))
        assert escaped(verdict.claim.differs) in account and escaped(verdict.claim.paper) in account
        for finding in verdict.findings:
            line = next(
                line for line in account.splitlines() if line.startswith(f"| {escaped(finding.comparison.label)}")
            )
            assert escaped(finding.comparison.paper) in line and line.endswith(f"| {finding.outcome} |")


def test_the_reports_grids_hold_the_runs_of_the_ledger_and_no_others(
    evidence: Evidence, specs: tuple[Spec, Spec]
) -> None:
    grids = [block["metadata"] for block in specs[1]["spec"]["blocks"] if block["type"] == "panel-grid"]
    found = {grid["runSets"][0]["name"]: grid["runSets"][0]["filters"]["filters"][0]["value"] for grid in grids}
    runs = {title(name): [run.record.id for run in runs] for name, runs in finished_runs(evidence).items() if runs}
    assert found == runs
    for grid in grids:
        places = [panel["layout"] for panel in grid["panelBankSectionConfig"]["panels"]]
        cells = [(p["x"] + i, p["y"] + k) for p in places for i in range(p["w"]) for k in range(p["h"])]
        assert len(cells) == len(set(cells)) and all(p["x"] + p["w"] <= 24 for p in places)


def test_markup_in_records_is_shown_as_text(specs: tuple[Spec, Spec]) -> None:
    for spec in specs:
        texts = "\n".join(markdown(spec))
        assert escaped(HOSTILE) in texts
        assert not re.search(r"(?<!\\)<", texts)
    assert escaped("a|b\n*c* <d> [e](f)") == r"a\|b \*c\* \<d\> \[e\](f)"


def test_the_same_records_give_the_same_specifications(evidence: Evidence, specs: tuple[Spec, Spec]) -> None:
    assert [to_json(spec) for spec in boards(evidence)] == [to_json(spec) for spec in specs]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """The jobs of smoke scale, those of one experiment finished where the ledger looks for their records."""
    found = gather("smoke", str(tmp_path_factory.mktemp("recorded")))
    for job, record in found.items():
        if job.experiment == "gates":
            write(record, job)
            tracking = {"mode": "offline", "project": PROJECT, "entity": None}
            config = CONFIGURATION | {"name": job.experiment, "scale": "smoke", "tracking": tracking}
            write_atomically(record.folder / "config.yaml", yaml.safe_dump(config).encode())
            record.set_status("finished")
    return found


@pytest.fixture
def outputs(smoke: Evidence) -> Path:
    return Path(next(iter(smoke)).outputs)


def called(outputs: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as `make dashboards SCALE=smoke` gives it, by a user without a key but for that in `environment`."""
    command = [sys.executable, "-m", "experiments.dashboards", "--scale", "smoke", "--outputs", str(outputs)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    alone = {"HOME": str(outputs), "WANDB_ERROR_REPORTING": "false"}  # where no .netrc has a key
    return subprocess.run(
        command, cwd=ROOT, env=kept | alone | environment, capture_output=True, text=True, timeout=240
    )


def test_without_a_key_it_writes_files_and_says_what_to_set(
    smoke: Evidence, outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dashboards, "gather", lambda scale, outputs: smoke)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(outputs / "none"))
    assert dashboards.main(["--scale", "smoke", "--outputs", str(outputs)]) == 0
    said = capsys.readouterr().err
    assert "WANDB_API_KEY" in said
    for name in ("workspace", "report"):
        file = outputs / "report" / "wandb" / f"{name}.json"
        assert f"{file}\n" in said and "its numbers are meaningless" in file.read_text(encoding="utf-8")


def test_published_twice_there_is_one_workspace_and_one_report(outputs: Path) -> None:
    with Server() as server:
        for _ in range(2):
            ended = called(outputs, **server.environment)
            assert ended.returncode == 0, ended.stderr
        (board,), (ledger,) = server.workspaces, server.reports
        assert server.unknown == []
    assert (board.entity, board.project) == (ledger.entity, ledger.project) == (ENTITY, PROJECT)
    names = [section["name"] for section in board.spec["section"]["panelBankConfig"]["sections"]]
    assert names == ["Ledger", title("gates")]
    assert all(any(claim.id in text for text in markdown({"spec": ledger.spec})) for claim in claims())
    (grid,) = (block["metadata"] for block in ledger.spec["blocks"] if block["type"] == "panel-grid")
    assert grid["runSets"][0]["project"]["entityName"] == ENTITY
    urls = [line for line in ended.stderr.splitlines() if line.startswith("http")]
    assert len(urls) == 2 and all(f"{ENTITY}/{PROJECT}" in url for url in urls)


def test_a_server_out_of_reach_is_told_in_one_line_and_the_files_are_written(outputs: Path) -> None:
    with Server() as server:
        environment = server.environment
    (outputs / "report" / "wandb" / "workspace.json").unlink(missing_ok=True)
    ended = called(outputs, **environment)
    assert ended.returncode == 1
    (line,) = (line for line in ended.stderr.splitlines() if line.startswith("error: "))
    assert environment["WANDB_BASE_URL"] in line and "written" in line and "Traceback" not in ended.stderr
    assert (outputs / "report" / "wandb" / "workspace.json").exists()


def test_no_records_are_told_with_what_makes_some(
    smoke: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = {job: record for job, record in smoke.items() if not record.finished}
    monkeypatch.setattr(dashboards, "gather", lambda scale, outputs: nothing)
    assert dashboards.main(["--scale", "smoke", "--outputs", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "make reproduce SCALE=smoke" in line
    assert not (tmp_path / "report").exists()


def test_a_run_has_its_levels_where_the_panels_look_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    settings = {"mode": "disabled", "project": "p", "entity": None}
    config = {"name": "gates", "seed": 0, "scale": "smoke", "outputs": str(tmp_path), "task": {}, "tracking": settings}
    tracker = Tracker(config, Record(tmp_path / "abc"), ["attention=full", "depth=8"])
    levels = {"attention": "full", "depth": "8", "condition": "full, 8"}
    assert tracker.run.config["factors"] == {"gates": levels}
    tracker.abandon()
