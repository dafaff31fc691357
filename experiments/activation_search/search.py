"""The search for activation functions: Optuna proposes candidates, and training a child network scores each of them.

After the search, the best functions are retrained in larger networks with new seeds and compared with ReLU and Swish.
"""

import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Literal

from pydantic import PositiveInt
from rich.console import Console

from experiments.activation_search.findings import findings
from experiments.activation_search.study import BASELINES, Study, Train
from experiments.config.schema import Processors
from experiments.recording.contents import to_line
from experiments.recording.record import Record
from experiments.tracking.wandb_run import Tracker
from experiments.training.loop import Result


@dataclass
class Search:
    """A search for activation functions; the fields are the settings of the configuration's `search`.

    units: core units of a function, 1 or 2. trials: functions to train the child network with. max_operations: limit
    on a function's operations. workers: children that train in parallel. keep: how many of the best functions are
    retrained, in each of the `larger` sizes (settings of the model) for `larger_steps` steps with `repeats` new seeds.
    """

    strategy: Literal["random", "exhaustive", "evolutionary", "model_based"]
    units: Literal[1, 2]
    trials: PositiveInt
    max_operations: PositiveInt
    workers: Processors
    keep: PositiveInt
    larger: list[dict[str, PositiveInt]]
    larger_steps: PositiveInt
    repeats: PositiveInt

    def __call__(self, *run: Any) -> Result:
        """Search; see `search` for the arguments."""
        return search(*run)


def search(
    config: dict[str, Any], precision: str, record: Record, train: Train, tracker: Tracker, console: Console
) -> Result:
    """Search, retrain the best functions, and return metrics and tables. Resumes a search that was killed.

    train: trains and evaluates the model of a configuration; returns the result and the number of parameters.
    """
    started = time.monotonic()
    children = record.folder / "children"
    shutil.rmtree(children, ignore_errors=True)
    children.mkdir()
    this = Study(config, precision, record, train)
    rows = [this.row(count + 1) for count in range(len(this.trained()))]
    record.metrics_file.write_bytes(b"".join(map(to_line, rows)))
    if rows:
        console.print(f"resuming after function {len(rows)} of {this.settings['trials']}")

    def track(row: dict[str, float]) -> None:
        tracker.log({f"search/{name}": value for name, value in row.items() if name != "step"}, int(row["step"]))

    def log(row: dict[str, float]) -> None:
        with open(record.metrics_file, "ab") as file:
            file.write(to_line(row))
        track(row)

    for row in rows:  # the tracker skips those that W&B has
        track(row)
    if this.settings["workers"] > 1:
        with ProcessPoolExecutor(this.settings["workers"], mp_context=get_context("spawn")) as executor:
            this.run(log, executor, console)
    else:
        this.run(log, None, console)
    baselines = {name: this.cached_child(name, text).accuracy for name, text in BASELINES.items()}
    retrained = this.retrain(console)
    shutil.rmtree(children, ignore_errors=True)
    metrics, tables = findings(this, baselines, retrained)
    seen = sum(trial.user_attrs["seen"] for trial in this.trained())
    return Result({this.settings["trials"]: metrics}, tables, time.monotonic() - started, seen)
