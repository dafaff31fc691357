"""One W&B run per experiment that summarizes its runs, since W&B has no confidence intervals over a group.

It holds a table of levels × metrics with n, mean and 95 % interval, a bar chart of the means of each metric, and the
verdicts of the claims that rest on the experiment. It is logged again, under the same id, when any of this changes.
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
from experiments.report.runs import Row, Run, factors_of, final_rows, finished_runs, summarize
from experiments.tracking.offline import reachable_mode, use_folder
from experiments.tracking.wandb_run import better, table
from tasks.data.source import write_atomically

JOB_TYPE = "summary"


def log_summaries(verdicts: list[Verdict], evidence: Evidence, scale: str, outputs: str) -> None:
    """Log what has changed since the last call. An error of W&B is a warning: the ledger does not depend on it."""
    file = Path(outputs) / "wandb" / "summaries.json"
    try:
        logged = json.loads(file.read_text()) if file.exists() else {}
        for experiment, runs in finished_runs(evidence).items():
            if not runs or runs[0].record.config["tracking"]["mode"] == "disabled":
                continue
            levels, claimed = level_rows(experiment, runs), verdict_rows(experiment, verdicts)
            digest = hashlib.sha256(json.dumps([levels, claimed]).encode()).hexdigest()
            before = logged.get(f"{experiment}-{scale}", {"step": -1, "digest": ""})
            if digest != before["digest"]:
                step = before["step"] + 1
                log(experiment, scale, runs[0].record.config, levels, claimed, step)
                logged[f"{experiment}-{scale}"] = {"step": step, "digest": digest}
                write_atomically(file, json.dumps(logged, indent=2).encode())
    except (OSError, ValueError, TypeError, wandb.errors.Error) as error:
        warnings.warn(f"the summaries of the experiments were not logged to W&B ({error})", stacklevel=2)


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


def log(experiment: str, scale: str, config: dict[str, Any], levels: list[Row], claimed: list[Row], step: int) -> None:
    """Log the summary run of one experiment. step: how many times it was logged before; the last row is current."""
    folder = use_folder(config["outputs"])
    tracking = config["tracking"]
    run = wandb.init(
        dir=folder,
        mode=reachable_mode(tracking["mode"]),  # type: ignore[arg-type]
        project=tracking["project"],
        entity=tracking["entity"],
        id=f"{JOB_TYPE}-{experiment}-{scale}",
        resume="allow",
        name=f"{experiment} {JOB_TYPE}",
        group=experiment,
        job_type=JOB_TYPE,
        tags=[JOB_TYPE, scale],
        config={"name": experiment, "scale": scale},
        reinit="finish_previous",
        settings=wandb.Settings(console="off", x_save_requirements=False),
    )
    row: dict[str, Any] = {"levels": table(levels), "claims": table(claimed)}
    means: dict[str, Any] = {}
    for metric in dict.fromkeys(level["metric"] for level in levels):
        of_metric = [level for level in levels if level["metric"] == metric]
        title = metric + {"min": ", lower is better", "max": ", higher is better", None: ""}[better(metric)]
        row[f"mean/{metric}"] = wandb.plot.bar(table(of_metric), "level", "mean", title=title)
        means |= {f"{metric}/{level['level']}": level["mean"] for level in of_metric}
    run.log(row, step=step, commit=True)
    run.summary.update(means | {f"verdict/{each['claim']}": each["claim's verdict"] for each in claimed})
    run.finish()
