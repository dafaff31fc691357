"""`make sync`: upload what W&B's server lacks of the runs in <outputs>, however they were tracked.

Safe to repeat, to stop and to kill, also from several machines: the server is asked first, and has each row once.
"""

import argparse
import os
import sys
from collections.abc import Sequence

import wandb
from rich.console import Console

from experiments.config.command import command
from experiments.config.errors import ConfigError, HeldError, RecordError, first_line
from experiments.recording.record import Record, records
from experiments.report.wandb.summary_runs import stored_summaries, upload_summaries
from experiments.tracking.offline import unreachable, use_folder
from experiments.tracking.switches import check_switches
from experiments.tracking.upload import (
    TO_SET,
    by_project,
    lacks,
    logs_without_record,
    runs_at,
    send,
    surplus,
    upload_lock,
)

UPLOAD_PATIENCE = "300"  # seconds for the rest of one run


@command
def main(arguments: Sequence[str]) -> int:
    """Upload the runs in <outputs>; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.sync", description=__doc__)
    parser.add_argument("outputs", nargs="?", default="outputs")
    outputs = parser.parse_args(arguments).outputs
    console = Console(soft_wrap=True, highlight=False, markup=False)
    check_switches()
    if os.environ.get("WANDB_MODE") == "disabled":
        raise ConfigError("WANDB_MODE=disabled: nothing is uploaded; unset it to upload")
    found = records(outputs)
    for folder in logs_without_record(outputs, {record.id for record in found}):
        console.print(f"skipped: {folder} has no record; `wandb sync {folder}` uploads W&B's own log")
    if not found and not stored_summaries(outputs):
        console.print(f"nothing to upload from {outputs}")
        return 0
    os.environ.setdefault("WANDB_FINISH_TIMEOUT", UPLOAD_PATIENCE)
    use_folder(outputs)
    with upload_lock(outputs):
        reason = unreachable()
        if reason:
            raise RecordError(f"W&B cannot be reached ({reason}): {TO_SET}")
        try:
            return upload(found, outputs, console)
        except wandb.errors.Error as error:
            raise RecordError(f"W&B did not answer ({first_line(error)}): {TO_SET}") from error


def upload(found: Sequence[Record], outputs: str, console: Console) -> int:
    """Upload what the server lacks; returns the exit code."""
    sent, failed = list[str](), dict[str, str]()
    damaged = {record.id: damage for record in found if (damage := damage_of(record))}
    failed |= damaged
    with console.status("asking W&B"):
        places = by_project([record for record in found if record.id not in damaged])
        there = {place: runs_at(place, [record.id for record in some]) for place, some in places.items()}
    for place, some in places.items():
        for record in some:
            run = there[place].get(record.id)
            if more := surplus(record, run):
                failed[record.id] = f"W&B has {more} rows too many: delete {'/'.join((*place, record.id))} there"
            elif lacks(record, run):
                try:
                    with console.status(f"uploading {record.id}"):
                        reason = send(record, outputs, place)
                except HeldError:
                    console.print(f"skipped: {record.id} is still running")
                    continue
                if reason:
                    failed[record.id] = reason
                else:
                    sent.append(record.id)
    sent += upload_summaries(outputs)
    for identifier, message in failed.items():
        console.print(f"failed: {identifier}: {message}", style="red")
    if not sent and not failed:
        console.print(f"nothing to upload from {outputs}: W&B has it")
    else:
        console.print(f"{len(sent)} runs uploaded{': ' if sent else ''}{', '.join(sent)}")
    return 1 if failed else 0


def damage_of(record: Record) -> str:
    """Why a record cannot be sent, "" if it can."""
    if record.damage:
        return f"{record.folder}: {record.damage}"
    try:
        return "" if record.config and record.environment else f"{record.folder} has no settings"
    except RecordError as error:  # of a run that is not finished
        return str(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
