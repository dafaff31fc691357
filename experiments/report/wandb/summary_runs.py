"""One W&B run per experiment that summarizes its runs, since W&B has no confidence intervals over a group.

It holds a table of levels × metrics with n, mean and 95 % interval, a bar chart of the means of each metric, and the
verdicts of the claims that rest on the experiment. It gets a row more when any of this changes. The contents
are stored beside W&B's files, so that `make sync` can upload them.
"""

import hashlib
import json
import math
import warnings
from pathlib import Path
from typing import Any

import wandb

from experiments.ledger.claims import claims
from experiments.ledger.evidence import Evidence
from experiments.ledger.verdicts import Verdict
from experiments.recording.metrics import better
from experiments.recording.record import Record
from experiments.report.runs import Row, Run, factors_of, final_rows, finished_runs, summarize
from experiments.tracking.artifacts import log_ledger
from experiments.tracking.offline import reachable_mode, use_folder
from experiments.tracking.switches import tracking_now
from experiments.tracking.upload import project_of, runs_at
from experiments.tracking.wandb_run import table
from tasks.data.source import write_atomically

JOB_TYPE = "summary"
DIGEST = "digest"  # key in W&B's summary, of what the run shows


def log_summaries(verdicts: list[Verdict], evidence: Evidence, scale: str, outputs: str) -> None:
    """Log what has changed since the last call. An error of W&B is a warning: the ledger does not depend on it."""
    try:
        stored = stored_summaries(outputs)
        for experiment, runs in finished_runs(evidence).items():
            tracking = tracking_now(runs[0].record) if runs else {"mode": "disabled"}
            if tracking["mode"] == "disabled":
                continue
            identifier = f"{JOB_TYPE}-{experiment}-{scale}"
            rows = {"levels": level_rows(experiment, runs), "claims": verdict_rows(experiment, verdicts)}
            used = [str(run.record.folder) for run in runs]
            content = {"experiment": experiment, "scale": scale, "tracking": tracking, "runs": used, **rows}
            if digest(content) != digest(stored.get(identifier, {})):
                stored[identifier] = json.loads(json.dumps(content))
                write_atomically(stored_file(outputs), json.dumps(stored, indent=2).encode())
                log(identifier, content, outputs, reachable_mode(tracking["mode"]))
    except (OSError, ValueError, TypeError, wandb.errors.Error) as error:
        warnings.warn(f"the summaries of the experiments were not logged to W&B ({error})", stacklevel=2)


def stored_file(outputs: str) -> Path:
    """The file with the rows of all summary runs."""
    return Path(outputs) / "wandb" / "summary_runs.json"


def stored_summaries(outputs: str) -> dict[str, Any]:
    """The contents of all summary runs as they were logged last, by id."""
    file = stored_file(outputs)
    return json.loads(file.read_text()) if file.exists() else {}


def digest(content: dict[str, Any]) -> str:
    """The hash of what a summary run shows."""
    return hashlib.sha256(json.dumps([content.get("levels"), content.get("claims")]).encode()).hexdigest()


def upload_summaries(outputs: str) -> list[str]:
    """Upload the stored summary runs that W&B's server has not or has otherwise; returns their ids."""
    sent = []
    for identifier, content in stored_summaries(outputs).items():
        place = project_of(content["tracking"])
        run = runs_at(place, [identifier]).get(identifier)
        if run is None or run.state != "finished" or run.summary_metrics.get(DIGEST) != digest(content):
            tracking = dict(zip(("entity", "project"), place))
            log(identifier, content | {"tracking": tracking}, outputs, "online")
            sent.append(identifier)
    return sent


def metrics_of(experiment: str) -> list[str]:
    """The metrics of an experiment that claims rest on."""
    compared = [comparison for claim in claims() for comparison in claim.comparisons]
    return list(dict.fromkeys(each.metric for each in compared if each.experiment == experiment))


def level_rows(experiment: str, runs: list[Run]) -> list[Row]:
    """n, mean and 95 % interval of every metric over the seeds, for every combination of levels."""
    found = []
    for metric in metrics_of(experiment):
        rows = final_rows(runs, metric, factors_of(runs))
        for row in summarize(rows, ["level"]):
            found.append({"metric": metric, **row, "level": row["level"] or experiment})
    return found


def verdict_rows(experiment: str, verdicts: list[Verdict]) -> list[Row]:
    """Every comparison that uses the experiment, with its effect and verdict, and the verdict of its claim."""

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return [
        {
            "claim": verdict.claim.id,
            "statement": verdict.claim.statement,
            "claim's verdict": verdict.verdict,
            "comparison": finding.comparison.label,
            "paper": finding.comparison.paper,
            "n": finding.effect.n,
            "effect": finite(finding.effect.mean),
            "low": finite(finding.effect.low),
            "high": finite(finding.effect.high),
            "outcome": finding.outcome,
        }
        for verdict in verdicts
        for finding in verdict.findings
        if finding.comparison.experiment == experiment
    ]


def log(identifier: str, content: dict[str, Any], outputs: str, mode: str) -> None:
    """Log a summary run, as the next row of what W&B has under its id."""
    folder = use_folder(outputs)
    experiment, scale, levels = content["experiment"], content["scale"], content["levels"]
    run = wandb.init(
        dir=folder,
        mode=mode,  # type: ignore[arg-type]
        project=content["tracking"]["project"],
        entity=content["tracking"]["entity"],
        id=identifier,
        resume="allow" if mode == "online" else None,
        name=f"{experiment} {JOB_TYPE}",
        group=experiment,
        job_type=JOB_TYPE,
        tags=[JOB_TYPE, scale],
        config={"name": experiment, "scale": scale},
        reinit="finish_previous",
        settings=wandb.Settings(console="off", x_save_requirements=False),
    )
    row: dict[str, Any] = {"levels": table(levels), "claims": table(content["claims"])}
    means: dict[str, Any] = {}
    for metric in dict.fromkeys(level["metric"] for level in levels):
        of_metric = [level for level in levels if level["metric"] == metric]
        title = metric + {"min": ", lower is better", "max": ", higher is better", None: ""}[better(metric)]
        row[f"mean/{metric}"] = wandb.plot.bar(table(of_metric), "level", "mean", title=title)
        means |= {f"{metric}/{level['level']}": level["mean"] for level in of_metric}
    run.log(row, commit=True)
    verdicts = {f"verdict/{each['claim']}": each["claim's verdict"] for each in content["claims"]}
    run.summary.update(means | verdicts | {DIGEST: digest(content)})
    used = [record for record in map(Record, map(Path, content.get("runs", []))) if record.finished]
    if mode == "online":
        log_ledger(run, f"{experiment}-{scale}", used, {"levels": levels, "claims": content["claims"]})
    run.finish()
