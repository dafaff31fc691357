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
from experiments.ledger.levels import factors_of
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
    """The records under `outputs`, a row for each: the levels that its overrides choose, its seed, counts and metrics.

    experiment: only this one's. A record that is damaged has its status alone, and one that is not finished no metrics.
    """
    rows = []
    for record in records_of(outputs, experiment):
        row: dict[str, Any] = {"experiment": record.folder.parent.name, "id": record.id, "status": record.status}
        if record.finished:
            environment, summary = record.environment, record.summary
            factors: dict[str, Any] = factors_of(environment.get("overrides", []))
            seed = int(factors.pop("seed", 0))
            counts = {name: summary[name] for name in COUNTS if name in summary}
            row |= {"scale": environment["scale"], "seed": seed} | factors | counts | summary["metrics"]
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
