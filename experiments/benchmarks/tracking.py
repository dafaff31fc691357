"""The time that W&B adds to a run."""

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.table import Table

from experiments.benchmarks.models import REPEATS
from experiments.config.checks import plain
from experiments.config.compose import compose
from experiments.recording.record import Record
from experiments.tracking.wandb_run import Tracker

ROWS = 40  # of a training run at laptop scale


def tracking_table() -> Table:
    """The time for starting W&B, for each row, and for finishing. The first run of a process starts W&B's service."""
    times: list[tuple[float, float, float]] = []
    with TemporaryDirectory() as outputs:
        config = plain(compose(["experiment=positions", f"outputs={outputs}"]))
        metrics = dict.fromkeys(("nonoverlapping/loss", "nonoverlapping/perplexity"), 1.0)
        for count in range(1 + REPEATS):
            started = time.perf_counter()
            tracker = Tracker(config, Record(Path(outputs) / f"bench{count}"), [])
            logging = time.perf_counter()
            for step in range(1, 1 + ROWS):
                tracker.log({"train/loss": 1.0 / step, "train/gradient_norm": 1.0, "train/learning_rate": 0.01}, step)
            ending = time.perf_counter()
            tracker.finish({"metrics": metrics, "evaluations": {"0": metrics}}, {"protocol": [metrics]}, ROWS)
            times.append((logging - started, (ending - logging) / ROWS, time.perf_counter() - ending))
    table = Table("W&B, offline", "ms to start", "ms per row", "ms to finish", title=f"tracking a run of {ROWS} rows")
    later = [statistics.median(column) for column in zip(*times[1:])]
    for name, row in (("first run of a process", times[0]), (f"later ones, median of {REPEATS}", later)):
        table.add_row(name, *(f"{1000 * seconds:.2f}" for seconds in row))
    return table
