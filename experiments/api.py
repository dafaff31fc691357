"""The harness in Python: run, read records as a table, judge, and load a trained model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from tokenizers import Tokenizer
from torch import nn

from experiments.config import plugins
from experiments.config.compose import compose
from experiments.evaluation.repeat import finished, trained
from experiments.ledger.levels import Factors, factors_of, with_all_levels
from experiments.ledger.runs import gather
from experiments.ledger.verdicts import Verdict, judge_all
from experiments.recording.record import Record
from experiments.recording.record import records as records_of
from experiments.training.execute import execute
from experiments.training.run_spec import resolve

LEADING = ["experiment", "id", "status", "scale", "seed"]
COUNTS = ["parameters", "steps", "tokens", "seconds", "peak_bytes"]


def run(overrides: Sequence[str], *, quiet: bool = False) -> Record:
    """Run what these overrides of the command line choose, such as ["experiment=positions", "position=rope"].

    Returns its record: `summary["metrics"]` are the last metrics, `metrics()` the rows of the training. A run that is
    finished is not repeated. Raises ValueError for overrides that choose no run.
    """
    own = plugins.take(overrides)
    return execute(resolve(compose(own), own), Console(stderr=True, markup=False, quiet=quiet))


def records(outputs: str | Path = "outputs", experiment: str | None = None) -> pd.DataFrame:
    """The records under `outputs`, a row for each: its seed, its level of each factor that a run of its experiment
    chooses, counts and metrics.

    experiment: only this one's. A record that is damaged has its status alone, and one that is not finished no metrics.
    """
    known = list(records_of(outputs, experiment))
    chosen: dict[str, list[tuple[Factors, Record]]] = {}
    for record in known:
        if record.finished:
            overrides = record.environment.get("overrides", [])
            chosen.setdefault(record.folder.parent.name, []).append((factors_of(overrides), record))
    levels = {record.folder: factors for runs in chosen.values() for factors, record in with_all_levels(runs)}
    rows = []
    for record in known:
        row: dict[str, Any] = {"experiment": record.folder.parent.name, "id": record.id, "status": record.status}
        if record.folder in levels:
            factors, summary = levels[record.folder], record.summary
            seed = int(factors.pop("seed", record.config["seed"]))
            counts = {name: summary[name] for name in COUNTS if name in summary}
            row |= {"scale": record.environment["scale"], "seed": seed} | factors | counts | summary["metrics"]
        rows.append(row)
    found = pd.DataFrame(rows)
    return found[[*(name for name in LEADING if name in found), *(name for name in found if name not in LEADING)]]


def judge(scale: str = "laptop", outputs: str | Path = "outputs") -> list[Verdict]:
    """The verdicts on all claims from the records at one scale. Raises ValueError for an unknown scale."""
    return judge_all(gather(scale, str(outputs)))


def load_model(run: str | Record, outputs: str | Path = "outputs") -> tuple[nn.Module, Tokenizer | None]:
    """The trained model of a finished run, and its tokenizer if it has one.

    run: its id, or its record. Raises ValueError if there is no such run, or if it must not be built.
    """
    record = finished(run, str(outputs)) if isinstance(run, str) else run
    _, model = trained(record)
    file = record.folder / "tokenizer.json"
    return model, Tokenizer.from_file(str(file)) if file.exists() else None
