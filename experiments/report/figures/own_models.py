"""The evaluations of the user's own models. No claim rests on them, so they are found among the records."""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.ledger.evidence import Evidence
from experiments.recording.record import records
from experiments.report.figures.builders import Built, retrieval_chart
from experiments.report.figures.chart import Table
from experiments.report.figures.figure import Figure
from experiments.report.figures.summary_builders import samples, scores
from experiments.report.runs import Row, Run, factors_of
from experiments.sweeps.grid import Job

SECTION = "Models of your own"
PREFIX = "evaluate_"


def evaluations(outputs: str | Path) -> Evidence:
    """The finished evaluations under `outputs`, each identified by its model, its data and its seed."""
    kinds = [record for kind in sorted(TITLES) for record in records(outputs, kind)]
    found = [record for record in kinds if record.finished]
    labels = [(record.folder.parent.name, model_of(record.config), data_of(record.config)) for record in found]
    evidence: Evidence = {}
    for record, (name, model, data) in zip(found, labels):
        if Counter(labels)[name, model, data] > 1:
            model = f"{model} ({record.id[:4]})"
        named = (("model", model), ("data", data), ("seed", str(record.config["seed"])))
        factors = tuple(pair for pair in named if pair[1])
        evidence[Job(name, record.config["scale"], str(outputs), factors)] = record
    return evidence


def model_of(config: dict[str, Any]) -> str:
    """The id of a model on a hub, or the last two parts of a folder."""
    return "/".join(Path(config.get("pretrained", "")).parts[-2:])


def data_of(config: dict[str, Any]) -> str:
    """The path or the identifier of the data, or the name of its class."""
    data = config["data"]
    return str(data.get("path") or data.get("identifier") or data.get("_target_", "data")) if data else ""


def retrieval(runs: Sequence[Run]) -> Built:
    """The share of digits by prompt length and position of the key."""
    rows: list[Row] = []
    for run in runs:
        for name, value in run.evaluation()[1].items():
            score, *parts = name.split("/")
            if len(parts) == 2 and parts[0].isdecimal():
                cell = {"x": int(parts[0]), "y": parts[1], "group": score}
                rows.append(cell | {"level": run.label(factors_of(runs)), "value": value})
    return retrieval_chart(rows, "share")


def perplexities(runs: Sequence[Run]) -> Built:
    """The scores of each model by each protocol, with the settings of the protocol."""
    rows: list[list[Any]] = []
    for run in runs:
        for row in run.rows("protocol", ["protocol"]):
            name = row["protocol"]
            values = [run.value(f"{name}/{measure}") for measure in ("loss", "perplexity", "bits_per_byte")]
            settings = [row.get(key) for key in ("window", "stride", "documents", "tokens", "bytes")]
            rows.append([run.factors["model"], run.factors.get("data", ""), name, *settings, *values])
    columns = ["model", "data", "protocol", "window", "stride", "documents", "tokens", "bytes"]
    return Table([*columns, "nats per token", "perplexity", "bits per byte"], rows) if rows else None


TITLES = {
    "evaluate_passkey": "Passkey retrieval",
    "evaluate_language_modeling": "Perplexity",
    "evaluate_summarization": "Summaries",
}
FIGURES = {
    "evaluate_passkey": (
        Figure(
            "Passkeys found",
            "Columns are prompt lengths, in tokens of each model, and rows positions of the key. Look at where the "
            "share falls below 1, which is every digit.",
            retrieval,
        ),
    ),
    "evaluate_language_modeling": (
        Figure(
            "Perplexity by protocol",
            "Compare models with different tokenizers by bits per byte only, and only on the same data.",
            perplexities,
        ),
    ),
    "evaluate_summarization": (
        Figure("ROUGE beside the baselines", "Look at whether a model is better than the baselines.", scores),
        Figure("Sample outputs", "Look at whether an output says what its reference says.", samples),
    ),
}


def command(runs: Sequence[Run]) -> str:
    """The command of the last evaluation of a kind."""
    job, config = runs[-1].job, runs[-1].record.config
    model, task = shlex.quote(f"model={config.get('pretrained', '')}"), job.experiment.removeprefix(PREFIX)
    return f"python -m experiments.evaluate {model} task={task}"
