"""`python -m experiments.list [group | claims]`: the experiments and what is finished, the choices of a group, claims.

Without an argument: every experiment with its finished runs under the outputs folder.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.config.choices import file_of, groups, nearest
from experiments.config.command import command
from experiments.config.errors import ConfigError
from experiments.ledger.claims import claims
from experiments.recording.record import records

PARTS = ("@package", "python -m")  # comments that a choice's file has before its description


@command
def main(arguments: Sequence[str]) -> int:
    """Print the list; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.list", description=__doc__)
    parser.add_argument("what", nargs="?", default="experiment", help="a group of choices such as position, or claims")
    parser.add_argument("--outputs", default="outputs", help="where finished runs are counted")
    options = parser.parse_args(arguments)
    known = groups()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    if options.what == "claims":
        for claim in claims():
            table.add_row(claim.id, claim.idea, claim.statement)
    elif options.what not in known:
        raise ConfigError(f"{options.what}: no such group; {nearest(options.what, [*known, 'claims'])}")
    else:
        finished = Counter(record.folder.parent.name for record in records(options.outputs) if record.finished)
        for choice in known[options.what]:
            counted = [f"{finished[choice]} finished"] if options.what == "experiment" else []
            table.add_row(choice, *counted, description(file_of(options.what, choice)))
    Console(markup=False, highlight=False).print(table)
    return 0


def description(file: Path) -> str:
    """What the comment at the beginning of a choice's file says of it."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.lstrip("# ")
        lines += [text] if not text.startswith(PARTS) else []
    return " ".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
