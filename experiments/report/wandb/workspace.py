"""The records as a W&B workspace, and saving it with the report."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr
from wandb_workspaces.reports.v2.interface import PanelTypes

from experiments.ledger.verdicts import Verdict
from experiments.recording.record import to_json
from experiments.report.figures.registry import title
from experiments.report.runs import Run
from experiments.report.wandb.panels import MOST_RUNS, panels
from experiments.report.wandb.report import about, experiments_of, metrics_of, overview
from tasks.data.source import write_atomically

PUBLISHED = "published.json"  # beside the specifications: the addresses of what was saved
RANDOM_IDS = ("__id__", "id", "ref")  # keys to which W&B's library gives a new random value each time
OTHER_RUNS = (
    "W&B filters a workspace as a whole: runs of other experiments that have the same metric form one more group here, "
    "without a level. The filter `Group = {}` on the list of runs hides them; the report's grids hold only the runs of "
    "the ledger."
)


def workspace(
    verdicts: Sequence[Verdict], runs: dict[str, list[Run]], scale: str, entity: str, project: str
) -> ws.Workspace:
    """The workspace: the ledger first, then a section for each experiment with finished runs."""
    tables = [wr.WeavePanelSummaryTable(table_name=name) for name in ("claims", "levels")]  # of the summary runs
    counts = wr.MarkdownPanel(markdown=overview(verdicts, scale))
    ledger: list[PanelTypes] = [counts, *tables, wr.RunComparer(diff_only="split")]
    sections = [ws.Section(name="Ledger", panels=ledger, is_open=True, pinned=True)]
    for name in experiments_of(verdicts):
        if runs.get(name):
            text = f"{about(name, runs[name], verdicts)}\n\n{OTHER_RUNS.format(name)}"
            found = [wr.MarkdownPanel(markdown=text), *panels(name, runs[name], metrics_of(name, verdicts))]
            sections.append(ws.Section(name=title(name), panels=found, is_open=True))
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"Experiments ({scale})",
        sections=sections,
        settings=ws.WorkspaceSettings(max_runs=MOST_RUNS),
        runset_settings=ws.RunsetSettings(filters=expr.And(expr.Config("scale") == scale)),
    )


def specification(board: ws.Workspace | wr.Report) -> Any:
    """A board as plain data, equal for equal records: random identifiers are numbered in the order they occur."""
    numbers: dict[Any, str] = {}

    def numbered(node: Any) -> Any:
        if isinstance(node, list):
            return [numbered(item) for item in node]
        if not isinstance(node, dict):
            return node
        return {
            key: numbers.setdefault(value, str(len(numbers)))
            if key in RANDOM_IDS and isinstance(value, str) and value
            else numbered(value)
            for key, value in node.items()
        }

    return numbered(board._to_model().model_dump(by_alias=True, exclude_none=True, mode="json"))


def save_boards(board: ws.Workspace, ledger: wr.Report, folder: Path) -> list[str]:
    """Save both to W&B, replacing those saved to the same project before; returns their URLs."""
    file = folder / PUBLISHED
    target = f"{wandb.setup().settings.base_url}/{board.entity}/{board.project}: {board.name}"
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if target in before:
        ledger.id = before[target]["report"]
        new, board = board, ws.Workspace.from_url(before[target]["workspace"])
        board.sections, board.settings, board.runset_settings = new.sections, new.settings, new.runset_settings
    board.save()
    ledger.save()
    write_atomically(file, to_json(before | {target: {"workspace": board.url, "report": ledger.id}}))
    return [board.url, ledger.url]
