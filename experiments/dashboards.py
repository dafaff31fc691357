"""`make dashboards`: the records as a W&B workspace, the ledger as a W&B report; published if there is an API key."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import wandb
from rich.console import Console
from wandb.sdk.lib.wbauth import read_netrc_auth

from experiments.config.command import command
from experiments.config.errors import print_error
from experiments.ledger.runs import gather
from experiments.ledger.verdicts import judge_all
from experiments.recording.record import to_json
from experiments.report.runs import finished_runs
from experiments.report.wandb.report import report
from experiments.report.wandb.workspace import PUBLISHED, save_boards, specification, workspace
from experiments.tracking.offline import check_reachable, use_folder
from experiments.tracking.switches import check_switches, tracking_now
from tasks.data.source import write_atomically


@command
def main(arguments: Sequence[str]) -> int:
    """Write the specifications, and save them to W&B's server if there is a key; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.dashboards", description=__doc__)
    parser.add_argument("--scale", default="laptop", help="smoke, laptop, gpu or paper")
    parser.add_argument("--outputs", default="outputs")
    options = parser.parse_args(arguments)
    console = Console(stderr=True, markup=False)
    check_switches()
    evidence = gather(options.scale, options.outputs)
    verdicts = judge_all(evidence)
    runs = finished_runs(evidence)
    if not any(runs.values()):
        where = f"{options.scale} scale under {options.outputs}"
        raise ValueError(f"no finished runs of {where}; `make reproduce SCALE={options.scale}` makes them")
    tracking = tracking_now(next(run for found in runs.values() for run in found).record)
    project = tracking["project"]
    folder = Path(options.outputs) / "report" / "wandb"
    content = (verdicts, runs, options.scale)
    for name, board in (("workspace", workspace(*content, "", project)), ("report", report(*content, "", project))):
        write_atomically(folder / f"{name}.json", to_json(specification(board)))
        console.print(f"{folder / name}.json", soft_wrap=True, highlight=False)
    if os.environ.get("WANDB_MODE") == "disabled":
        console.print("not published: WANDB_MODE=disabled", soft_wrap=True, highlight=False)
        return 0
    server = wandb.setup().settings.base_url
    if not (os.environ.get("WANDB_API_KEY") or read_netrc_auth(host=server)):
        message = "to publish, set WANDB_API_KEY; WANDB_ENTITY for a team, WANDB_BASE_URL for your own server"
        console.print(message, soft_wrap=True, highlight=False)
        return 0
    use_folder(options.outputs)
    try:
        check_reachable(server)
        entity = tracking["entity"] or str(wandb.Api().default_entity)
        os.environ["WANDB_SILENT"] = "true"  # W&B would print the URLs too
        for url in save_boards(workspace(*content, entity, project), report(*content, entity, project), folder):
            console.print(url, soft_wrap=True, highlight=False)
    except Exception as error:  # whatever W&B's client raises: no network, a wrong key, a missing permission
        message = f"not published to {server} ({error}); the files above are written"
        again = f"; if the published boards were deleted there, remove {folder / PUBLISHED}"
        print_error(console, ValueError(message + again * (folder / PUBLISHED).exists()))
        return 1 if "WANDB_API_KEY" in os.environ else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
