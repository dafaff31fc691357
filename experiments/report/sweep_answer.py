"""What a sweep found: its levels by the task's main metric, and the commands that show more."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.ledger.levels import Result, factors_of, varying
from experiments.recording.record import Record
from experiments.report.level_table import for_terminal, level_table

USUAL = {"scale": "laptop", "outputs": "outputs"}  # which a command need not name


def print_answer(begun: Sequence[dict[str, Any]], console: Console) -> None:
    """Print the levels of the jobs that have a result, of each experiment on its own, and how to compare them again.

    begun: the jobs of a command, each with the folder of its record.
    """
    found: dict[str, list[Result]] = {}
    for entry in begun:
        record = Record(Path(entry["record"])) if entry["record"] else None
        if record and not record.diverged:
            factors = factors_of(entry["overrides"])
            seed = int(factors.pop("seed", record.config["seed"]))
            found.setdefault(record.config["name"], []).append(Result(factors, seed, record))
    for experiment, results in found.items():
        if varying(results):
            console.print(for_terminal(level_table(results)))
        config = results[0].record.config
        places = [f"--{name} {shlex.quote(config[name])}" for name, usual in USUAL.items() if config[name] != usual]
        compare = ["python -m experiments.compare", experiment, *varying(results), *places]
        console.print(f"compare: {' '.join(compare)}", highlight=False, soft_wrap=True)
    if found:
        folder = results[0].record.config["outputs"]
        console.print(f"curves: python -m experiments.dashboard {shlex.quote(folder)}", highlight=False, soft_wrap=True)
