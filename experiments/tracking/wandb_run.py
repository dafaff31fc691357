"""The W&B run that goes with a run.

Its group is the experiment, its job type the task, and its tags are the factor levels and the scale; W&B's step is the
training step. Test metrics are defined with their direction (min or max). A resumed run continues after the last step
that W&B's server has, so it stays one W&B run without gaps or duplicates. An offline log has the whole run.
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

from experiments.config.errors import RecordError, first_line
from experiments.recording.metrics import better
from experiments.recording.record import Record
from experiments.tracking.artifacts import log_artifacts
from experiments.tracking.offline import in_sweep, reachable_mode, unreachable, use_folder
from experiments.tracking.switches import check_switches, check_tracking


def tags_of(overrides: Sequence[str]) -> list[str]:
    """A run's overrides as short tags, without those that W&B shows elsewhere or that do not affect its numbers."""
    pairs = [
        (override[1:].partition("=")[0], "deleted") if override.startswith("~") else override.lstrip("+").split("=", 1)
        for override in overrides
    ]
    skipped = {"experiment", "seed", "scale", "outputs", "cache", "threads", "data.path", "start"}
    shown = [(key, value) for key, value in pairs if key not in skipped and key.split(".")[0] != "tracking"]
    return [f"{key.split('.')[-1]}={value}"[:64] for key, value in shown]


FACTORS, CONDITION = "factors", "condition"  # keys in W&B's config: a run's factor levels, and all of them as one text


ARTIFACTS = "artifacts"  # in W&B's summary: how much of the run's artifacts was sent


GATE = re.compile(r"gates/layer_(\d+)/head_(\d+)")
GATE_BINS = np.linspace(0, 1, 21)


starting, started = threading.Event(), threading.Event()


def warm_up(config: dict[str, Any]) -> None:
    """Start W&B's service and import the modules that its first run and table need, in parallel with the first training
    steps: this takes almost a second, once per process. Raises ConfigError for settings that W&B would refuse."""
    check_switches()
    check_tracking(config["tracking"])
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


def by_size(name: str) -> bool:
    """Whether a metric is one of a series, for instance over lengths: its name has a number as a part."""
    return any(part.isdigit() for part in name.split("/"))


def table(rows: Sequence[dict[str, Any]]) -> wandb.Table:
    """Rows as a W&B Table."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return wandb.Table([*columns], [[row.get(name) for name in columns] for row in rows])


def without_single_gates(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics, with one histogram of all gates instead of one number per head."""
    gates = [value for name, value in metrics.items() if GATE.fullmatch(name)]
    others = {name: value for name, value in metrics.items() if not GATE.fullmatch(name)}
    if gates:
        others["gates/shares"] = wandb.Histogram(np_histogram=np.histogram(gates, GATE_BINS))
    return others


def final_values(summary: dict[str, Any]) -> dict[str, Any]:
    """What W&B's summary has of a finished run beside its tables: the last value of every metric and, if there were
    several evaluations, the best one under best/."""
    metrics, evaluations = summary["metrics"], summary["evaluations"].values()
    best = {
        f"best/{name}": (min if better(name) == "min" else max)(row[name] for row in evaluations if name in row)
        for name in metrics
        if better(name) and not by_size(name) and len(evaluations) > 1
    }
    rest = {name: value for name, value in summary.items() if name not in ("metrics", "evaluations")}
    plain = {name: value for name, value in metrics.items() if not GATE.fullmatch(name)}
    return plain | best | rest


def results_of(record: Record) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]], int]:
    """A finished run's summary, tables and last step."""
    return record.summary, record.read("tables.json"), record.summary["steps"]


def begin(mode: str, about: dict[str, Any]) -> wandb.Run:
    """Begin a W&B run, or take up the one that the server has under this id."""
    return wandb.init(
        **about,
        mode=mode,  # type: ignore[arg-type]
        resume="allow" if mode == "online" else None,
        reinit="finish_previous",
        settings=wandb.Settings(x_save_requirements=False),  # takes 50 ms; the record has the versions
    )


class Tracker:
    """One W&B run. Its id is the record's, so a resumed run continues the same W&B run.

    mode: what it is, online or offline; disabled. last: the last step that W&B's server has, -1 if none.

    In a W&B sweep, the agent sets project and id, and a run that finished before is logged completely. Raises
    RecordError if W&B refuses the run offline too.
    """

    def __init__(self, config: dict[str, Any], record: Record, tags: Sequence[str]):
        folder = use_folder(config["outputs"])
        settings = config["tracking"]
        levels = dict(tag.split("=", 1) for tag in tags)
        factors = {config["name"]: levels | {CONDITION: ", ".join(levels.values())}}
        task = str(config["task"].get("_target_", "")).rsplit(".", 1)[-1]
        self.record, self.artifacts = record, settings.get("artifacts", "none")
        self.mode = reachable_mode(settings["mode"])
        self.prefix = "search/" if config.get("search") else ""  # of the metrics of its steps
        destination = {"project": settings["project"], "entity": settings["entity"], "id": record.id}
        if starting.is_set():
            started.wait()
        about = {
            **({} if in_sweep() else destination),
            "dir": folder,
            "name": "-".join([config["name"], *tags, f"seed{config['seed']}"]),
            "group": settings.get("group") or config["name"],
            "job_type": task,
            "tags": list(dict.fromkeys([*tags, config["scale"], *settings.get("tags", [])])),
            "notes": settings.get("notes"),
            "config": config | {FACTORS: factors},
        }
        try:
            self.run = begin(self.mode, about)
        except wandb.errors.Error as error:  # a key that the server does not know, a missing permission
            refused = first_line(error)
            if self.mode != "online":
                raise RecordError(f"W&B refuses the run: {refused}; tracking=none runs without it") from error
            warnings.warn(f"W&B refused this run ({refused}): it is tracked offline", stacklevel=2)
            self.mode = "offline"
            self.run = begin(self.mode, about)
        self.last = self.run.starting_step - 1 if self.mode == "online" else -1
        self.defined: set[str] = set()
        self.step, self.row = 0, dict[str, Any]()

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Add metrics to the row of a step. The row is sent when the next step starts, so that W&B only has complete
        rows and none is sent twice."""
        if step != self.step:
            self.send()
        self.step, self.row = step, self.row | metrics

    def send(self) -> None:
        """Send the row to W&B. Metrics are defined by full name: with a glob, W&B's summary would have only the best
        value."""
        row, self.row = without_single_gates(self.row), {}
        for name in row.keys() - self.defined:
            hidden = by_size(name) or None  # too many charts otherwise
            self.run.define_metric(name, step_metric="_step", summary=better(name), hidden=hidden)
            self.defined.add(name)
        if row and self.step > self.last:
            self.run.log(row, step=self.step, commit=True)

    def log_rows(self, record: Record) -> None:
        """Send W&B the rows of a record that it lacks."""
        for row in record.metrics() if record.metrics_file.exists() else []:
            self.log({f"{self.prefix}{name}": value for name, value in row.items() if name != "step"}, row["step"])

    def finish(self, summary: dict[str, Any], tables: dict[str, list[dict[str, Any]]], step: int) -> None:
        """Send tables and summary, and close the run. The record is complete by now, so a failure of W&B is only a
        warning: `make sync` uploads the rest."""
        reason = self.close(summary, tables, step)
        if reason:
            warnings.warn(f"W&B lacks a part of this run ({reason}): run `make sync` to upload the rest", stacklevel=2)

    def log_again(self, record: Record) -> None:
        """Send W&B what it lacks of a finished run, from the record."""
        self.log_rows(record)
        self.finish(*results_of(record))

    def close(self, summary: dict[str, Any], tables: dict[str, list[dict[str, Any]]], step: int) -> str | None:
        """Send tables and summary, and close the run; returns why W&B lacks a part of it, None if it has all."""
        reason = unreached = unreachable() if self.mode == "online" else None
        try:
            if not unreached:  # W&B needs its server for tables
                self.send_results(summary, tables, step)
                reason = self.send_artifacts()
            self.run.finish(exit_code=1 if unreached or "diverged" in summary else 0)
        except (OSError, wandb.errors.Error) as error:
            reason = reason or first_line(error)
        return reason

    def send_results(self, summary: dict[str, Any], tables: dict[str, list[dict[str, Any]]], step: int) -> None:
        """Send the final metrics, tables and summary."""
        metrics = summary["metrics"]
        made: dict[str, Any] = {name: table(rows) for name, rows in tables.items() if rows}
        gates = [(GATE.fullmatch(name), value) for name, value in metrics.items()]
        rows = [{"layer": int(at[1]), "head": int(at[2]), "share": value} for at, value in gates if at]
        if rows:
            made["gates/by_head"] = table(rows)
        if "beta" in made:
            made["beta/chart"] = wandb.plot.bar(table(tables["beta"]), "beta", "share", title="Trained β")
        there = self.last >= max(step, self.step)  # a row with tables whose files may not have arrived
        self.log(metrics | made, max(step, self.step))
        self.send()
        self.run.summary.update(final_values(summary))
        if there:
            self.run.summary.update({name: rows for name, rows in made.items() if isinstance(rows, wandb.Table)})

    def send_artifacts(self) -> str | None:
        """Log the artifacts of a finished run, which W&B links online only; returns why that failed, if it did."""
        record = Record(self.record.folder)
        if self.mode != "online" or not record.finished or self.artifacts == "none":
            return None
        try:
            log_artifacts(self.run, record, self.artifacts)
        except Exception as error:  # of W&B's client, which has more than its documented ones here
            return first_line(error)
        self.run.summary[ARTIFACTS] = self.artifacts
        return None

    def abandon(self) -> None:
        """Close a run that was interrupted or failed."""
        with contextlib.suppress(TimeoutError):
            self.run.finish(exit_code=1)
