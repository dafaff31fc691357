"""`make sync`: upload the runs that were tracked offline, and the rest of online runs that lost the network.
Safe to repeat: nothing is uploaded twice.

A resumed run has several logs, which are uploaded in order. W&B already has a part of an online run; the rest comes
from its record.
"""

import sys
from collections.abc import Sequence
from itertools import zip_longest

from rich.console import Console

from experiments.config.errors import command
from experiments.records.record import records
from experiments.tracking.offline import unreachable, use_folder
from experiments.tracking.upload import TO_SET, complete, identifier_of, is_locked, is_offline, logs_by_run, upload


@command
def main(arguments: Sequence[str]) -> int:
    """Upload the runs in <outputs>/wandb; returns the exit code."""
    outputs = arguments[0] if arguments else "outputs"
    console = Console(soft_wrap=True, highlight=False, markup=False)
    waiting = logs_by_run(outputs)
    known = {record.id: record for record in records(outputs)}
    running = {record.id for record in known.values() if record.status == "running" and is_locked(record)}
    for identifier in sorted(running & waiting.keys()):
        console.print(f"skipped: {identifier} is still running")
    waiting = {identifier: logs for identifier, logs in waiting.items() if identifier not in running}
    begun_online = {identifier for identifier, logs in waiting.items() if not all(map(is_offline, logs))}
    partial = [known[identifier] for identifier in begun_online & known.keys() if known[identifier].finished]
    waiting = {identifier: logs for identifier, logs in waiting.items() if identifier not in begun_online}
    if not waiting and not partial:
        console.print(f"nothing to upload from {outputs}/wandb")
        return 0
    use_folder(outputs)
    reason = unreachable()
    if reason:
        console.print(f"error: W&B cannot be reached ({reason}): {TO_SET}", style="red", markup=False)
        return 1
    failed: dict[str, str] = {}
    with console.status(f"uploading {len(waiting) + len(partial)} runs"):
        for record in partial:
            complete(record, outputs)
        for logs in zip_longest(*waiting.values()):  # the first log of every run, then the second logs
            failed |= upload([log for log in logs if log and identifier_of(log) not in failed])
    for identifier, message in failed.items():
        console.print(f"failed: {identifier}: {message}", style="red", markup=False)
    sent = [*(record.id for record in partial), *(identifier for identifier in waiting if identifier not in failed)]
    console.print(f"{len(sent)} runs uploaded{': ' if sent else ''}{', '.join(sent)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
