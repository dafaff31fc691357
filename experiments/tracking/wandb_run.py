"""Weights & Biases: every run of ours is a run there, of use in W&B's own pages as it is.

Its group is the experiment, its job type the task, its tags are the levels of the factors and the scale; W&B's step is
the training step. What is measured on test data is defined with the direction in which it is better. A run that is
taken up again goes on where W&B's copy of it ends, so that all of its pieces are one run without gap or overlap.
"""

import contextlib
import importlib
import re
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import wandb

from experiments.config.errors import first_line
from experiments.records.record import Record
from experiments.tracking.offline import (
    in_sweep,
    last_step,
    marker,
    out_of_reach,
    reachable_mode,
    run_files,
    use_folder,
)


def tags_of(overrides: Sequence[str]) -> list[str]:
    """What a run was asked to be, as short tags; the experiment and the seed have places of their own."""
    pairs = [override.lstrip("+").split("=", 1) for override in overrides]
    skipped = {"experiment", "seed", "scale", "tracking", "outputs", "cache", "threads", "data.path", "start"}
    return [f"{key.split('.')[-1]}={value}"[:64] for key, value in pairs if key not in skipped]


FACTORS, CONDITION = "factors", "condition"  # keys of the configuration there: a run's levels, and all of them in one


BETTER = {  # by a word of a metric's name
    **dict.fromkeys(("loss", "perplexity", "degradation"), "min"),
    **dict.fromkeys(("accuracy", "digits", "exact", "overall", "rouge1", "rouge2", "rougeL", "rougeLsum"), "max"),
}


GATE = re.compile(r"gates/layer_(\d+)/head_(\d+)")
GATE_BINS = np.linspace(0, 1, 21)


starting, started = threading.Event(), threading.Event()


def warm_up(config: dict[str, Any]) -> None:
    """Start W&B's own process, and import what W&B itself imports with its first run and table, beside the work of the
    first steps: it takes most of a second, once a process."""
    if config["tracking"]["mode"] == "disabled" or starting.is_set():
        return
    starting.set()
    use_folder(config["outputs"])

    def start() -> None:
        wandb.setup()
        started.set()
        importlib.import_module("wandb.sdk.launch")
        importlib.import_module("pandas")

    threading.Thread(target=start).start()


def better(name: str) -> str | None:
    """min or max, whichever is better of a test metric; None of what is no score."""
    words = [] if name.startswith("train/") else re.split(r"[/_]", name)
    return next((BETTER[word] for word in words if word in BETTER), None)


def by_size(name: str) -> bool:
    """Whether a metric is one of many: of one length, one window, one width."""
    return any(part.isdigit() for part in name.split("/"))


def table(rows: Sequence[dict[str, Any]]) -> wandb.Table:
    """Rows as a W&B Table."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return wandb.Table([*columns], [[row.get(name) for name in columns] for row in rows])


def without_single_gates(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics with the gates of all heads as one histogram in place of a number each."""
    gates = [value for name, value in metrics.items() if GATE.fullmatch(name)]
    kept = {name: value for name, value in metrics.items() if not GATE.fullmatch(name)}
    if gates:
        kept["gates/shares"] = wandb.Histogram(np_histogram=np.histogram(gates, GATE_BINS))
    return kept


class Tracker:
    """One W&B run with the record's id, so that a run that is taken up again is the same one there.

    In a sweep of W&B's own, project and id are those that its agent has given; of what was done before, all of it is
    logged there.
    """

    def __init__(self, config: dict[str, Any], record_id: str, tags: Sequence[str]):
        use_folder(config["outputs"])
        settings = config["tracking"]
        levels = dict(tag.split("=", 1) for tag in tags)
        factors = {config["name"]: levels | {CONDITION: ", ".join(levels.values())}}
        task = str(config["task"].get("_target_", "")).rsplit(".", 1)[-1]
        self.mode = reachable_mode(settings["mode"])
        self.outputs, self.id = config["outputs"], record_id
        place = {"project": settings["project"], "entity": settings["entity"], "id": record_id}
        known = self.mode == "offline" and not in_sweep()
        self.last = last_step(self.outputs, self.id) if known else -1  # what W&B holds already
        if starting.is_set():
            started.wait()
        self.run = wandb.init(
            mode=self.mode,  # type: ignore[arg-type]
            **({} if in_sweep() else place),
            resume="allow",
            name="-".join([config["name"], *tags, f"seed{config['seed']}"]),
            group=config["name"],
            job_type=task,
            tags=[*tags, config["scale"]],
            config=config | {FACTORS: factors},
            reinit="finish_previous",
            settings=wandb.Settings(x_save_requirements=False),  # the record has the versions; W&B takes 50 ms for them
        )
        if self.mode == "online":
            self.last = self.run.starting_step - 1
        self.defined: set[str] = set()
        self.step, self.row = 0, dict[str, Any]()

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Add to a step's row. It goes to W&B when the next one begins: so a step that W&B has is complete, and is not
        sent again."""
        if step != self.step:
            self.send()
        self.step, self.row = step, self.row | metrics

    def send(self) -> None:
        """Give the row to W&B. Every metric is defined by its whole name: of a pattern W&B keeps the best alone."""
        row, self.row = without_single_gates(self.row), {}
        if not row or self.step <= self.last:
            return
        for name in row.keys() - self.defined:
            hidden = by_size(name) or None  # a chart for each would bury the others
            self.run.define_metric(name, step_metric="_step", summary=better(name), hidden=hidden)
            self.defined.add(name)
        self.run.log(row, step=self.step, commit=True)

    def log_again(self, record: Record) -> None:
        """Give W&B what it lacks of a finished run, from its record."""
        self.log_rows(record)
        self.finish(record.summary, record.read("tables.json"), record.summary["steps"])

    def log_rows(self, record: Record) -> None:
        """Give W&B what it lacks of the rows of a record."""
        for row in record.metrics() if record.metrics_file.exists() else []:
            self.log({name: value for name, value in row.items() if name != "step"}, row["step"])

    def finish(self, summary: dict[str, Any], tables: dict[str, list[dict[str, Any]]], step: int) -> None:
        """The tables, and in the run's summary the last value of every metric under its own name, and under best/ the
        best one where there were several evaluations.

        The run is recorded by now: what W&B fails of is a warning, and left to `make sync`.
        """
        reason = out_of_reach() if self.mode == "online" else None
        try:
            if not reason:  # for tables W&B wants an answer of its server
                self.send_results(summary, tables, step)
            self.run.finish(exit_code=1 if reason else 0)
        except (OSError, wandb.errors.Error) as error:
            reason = reason or first_line(error)
        if reason:
            warnings.warn(f"W&B did not get all of this run ({reason}): `make sync` uploads it", stacklevel=2)
        elif self.mode == "online":
            for log in run_files(self.outputs, self.id):
                marker(log).touch()

    def send_results(self, summary: dict[str, Any], tables: dict[str, list[dict[str, Any]]], step: int) -> None:
        """What a run ends with."""
        metrics, evaluations = summary["metrics"], summary["evaluations"].values()
        made: dict[str, Any] = {name: table(rows) for name, rows in tables.items() if rows}
        gates = [(GATE.fullmatch(name), value) for name, value in metrics.items()]
        rows = [{"layer": int(at[1]), "head": int(at[2]), "share": value} for at, value in gates if at]
        if rows:
            made["gates/by_head"] = table(rows)
        if "beta" in made:
            made["beta/chart"] = wandb.plot.bar(table(tables["beta"]), "beta", "share", title="Trained β")
        self.log(metrics | made, step)
        self.send()
        best = {
            f"best/{name}": (min if better(name) == "min" else max)(row[name] for row in evaluations if name in row)
            for name in metrics
            if better(name) and not by_size(name) and len(evaluations) > 1
        }
        rest = {name: value for name, value in summary.items() if name not in ("metrics", "evaluations")}
        plain = {name: value for name, value in metrics.items() if not GATE.fullmatch(name)}
        self.run.summary.update(plain | best | rest)

    def abandon(self) -> None:
        """Close a run that did not get to its end."""
        with contextlib.suppress(TimeoutError):
            self.run.finish(exit_code=1)
