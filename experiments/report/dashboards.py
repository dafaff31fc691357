"""`make dashboards`: the records as a W&B workspace, the ledger as a W&B Report; published where there is a key."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from rich.console import Console
from wandb.sdk.lib.wbauth import read_netrc_auth
from wandb_workspaces import expr
from wandb_workspaces.reports.v2.interface import PanelTypes

from experiments.config.errors import USER_ERRORS, print_error
from experiments.ledger.evidence import gather
from experiments.ledger.verdicts import Verdict, judge_all
from experiments.records.record import to_json
from experiments.report.data import Run, finished_runs
from experiments.report.figures import title
from experiments.report.wandb_panels import MOST, panels
from experiments.report.wandb_report import about, experiments_of, metrics_of, overview, report
from experiments.tracking.offline import check_reachable, use_folder
from tasks.data.source import write_atomically

PUBLISHED = "published.json"  # beside the specifications: where they were saved
DRAWN_BY_LOT = ("__id__", "id", "ref")  # keys whose values W&B's library draws anew each time
ONE_GROUP_MORE = (
    "W&B filters a workspace as a whole: runs of other experiments that have the same metric are one more group here, "
    "without a level. The filter `Group = {}` on the list of runs hides them; the report's grids hold only the runs of "
    "the ledger."
)


def main(arguments: Sequence[str]) -> int:
    """Write the specifications, and save them to the server if there is a key; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.report.dashboards", description=__doc__)
    parser.add_argument("--scale", default="laptop", help="smoke, laptop, gpu or paper")
    parser.add_argument("--outputs", default="outputs")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        evidence = gather(options.scale, options.outputs)
        verdicts = judge_all(evidence)
        runs = finished_runs(evidence)
        if not any(runs.values()):
            place = f"{options.scale} scale under {options.outputs}"
            raise ValueError(f"no finished runs of {place}; `make reproduce SCALE={options.scale}` makes them")
        tracking = next(run for found in runs.values() for run in found).record.config["tracking"]
    except USER_ERRORS as error:
        print_error(console, error)
        return 1
    project = tracking["project"]  # where the runs go
    folder = Path(options.outputs) / "report" / "wandb"
    described = (verdicts, runs, options.scale)
    for name, board in (("workspace", workspace(*described, "", project)), ("report", report(*described, "", project))):
        write_atomically(folder / f"{name}.json", to_json(specification(board)))
        console.print(f"{folder / name}.json", soft_wrap=True, highlight=False)
    server = wandb.setup().settings.base_url
    if not (os.environ.get("WANDB_API_KEY") or read_netrc_auth(host=server)):
        said = "to publish them set WANDB_API_KEY, WANDB_ENTITY for a team, WANDB_BASE_URL for a server of your own"
        console.print(said, soft_wrap=True, highlight=False)
        return 0
    use_folder(options.outputs)
    try:
        check_reachable(server)
        entity = tracking["entity"] or os.environ.get("WANDB_ENTITY") or str(wandb.Api().default_entity)
        os.environ["WANDB_SILENT"] = "true"  # it would tell the URLs too
        for url in publish(workspace(*described, entity, project), report(*described, entity, project), folder):
            console.print(url, soft_wrap=True, highlight=False)
    except Exception as error:  # whatever W&B's client raises: a network, a key, a right that is missing
        said = f"not published to {server} ({error}); the files above are written"
        again = f"; if what was published was deleted there, remove {folder / PUBLISHED}"
        print_error(console, ValueError(said + again * (folder / PUBLISHED).exists()))
        return 1 if "WANDB_API_KEY" in os.environ else 0
    return 0


def workspace(
    verdicts: Sequence[Verdict], runs: dict[str, list[Run]], scale: str, entity: str, project: str
) -> ws.Workspace:
    """The workspace: the ledger first, then a section for each experiment with finished runs."""
    tables = [wr.WeavePanelSummaryTable(table_name=name) for name in ("claims", "levels")]  # of the summary runs
    note = wr.MarkdownPanel(markdown=overview(verdicts, scale))
    ledger: list[PanelTypes] = [note, *tables, wr.RunComparer(diff_only="split")]
    sections = [ws.Section(name="Ledger", panels=ledger, is_open=True, pinned=True)]
    for name in experiments_of(verdicts):
        if runs.get(name):
            said = f"{about(name, runs[name], verdicts)}\n\n{ONE_GROUP_MORE.format(name)}"
            found = [wr.MarkdownPanel(markdown=said), *panels(name, runs[name], metrics_of(name, verdicts))]
            sections.append(ws.Section(name=title(name), panels=found, is_open=True))
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"Experiments ({scale})",
        sections=sections,
        settings=ws.WorkspaceSettings(max_runs=MOST),
        runset_settings=ws.RunsetSettings(filters=expr.And(expr.Config("scale") == scale)),
    )


def specification(board: ws.Workspace | wr.Report) -> Any:
    """A board as plain data, the same for the same records: identifiers are numbered in the order they occur."""
    numbers: dict[Any, str] = {}

    def numbered(node: Any) -> Any:
        if isinstance(node, list):
            return [numbered(item) for item in node]
        if not isinstance(node, dict):
            return node
        return {
            key: numbers.setdefault(value, str(len(numbers)))
            if key in DRAWN_BY_LOT and isinstance(value, str) and value
            else numbered(value)
            for key, value in node.items()
        }

    return numbered(board._to_model().model_dump(by_alias=True, exclude_none=True, mode="json"))


def publish(board: ws.Workspace, ledger: wr.Report, folder: Path) -> list[str]:
    """Save both, in place of those that were saved before to the same project; returns their URLs."""
    file = folder / PUBLISHED
    place = f"{wandb.setup().settings.base_url}/{board.entity}/{board.project}: {board.name}"
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if place in before:
        ledger.id = before[place]["report"]
        new, board = board, ws.Workspace.from_url(before[place]["workspace"])
        board.sections, board.settings, board.runset_settings = new.sections, new.settings, new.runset_settings
    board.save()
    ledger.save()
    write_atomically(file, to_json(before | {place: {"workspace": board.url, "report": ledger.id}}))
    return [board.url, ledger.url]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
