"""The evaluations of models of the user's own: found among the records, for no claim rests on them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.ledger.evidence import Evidence
from experiments.records.record import records
from experiments.report import charts
from experiments.report.builders import Built
from experiments.report.charts import Table
from experiments.report.data import Row, Run, factors_of, summarize
from experiments.report.figure import Figure
from experiments.report.summary_builders import samples, scores
from experiments.sweeps.grid import Job

SECTION = "Models of your own"
PREFIX = "evaluate_"


def evaluations(outputs: str | Path) -> Evidence:
    """The finished evaluations under `outputs`, each told apart by its model, its data and its seed."""
    found = [record for record in records(outputs, f"{PREFIX}*") if record.finished]
    labels = [(record.config["name"], model_of(record.config), data_of(record.config)) for record in found]
    evidence: Evidence = {}
    for record, (name, model, data) in zip(found, labels):
        if Counter(labels)[name, model, data] > 1:
            model = f"{model} ({record.id[:4]})"
        named = (("model", model), ("data", data), ("seed", str(record.config["seed"])))
        factors = tuple(pair for pair in named if pair[1])
        evidence[Job(name, record.config["scale"], str(outputs), factors)] = record
    return evidence


def model_of(config: dict[str, Any]) -> str:
    """A hub id as it is, of a folder the last two parts."""
    return "/".join(Path(config["pretrained"]).parts[-2:])


def data_of(config: dict[str, Any]) -> str:
    """What the data is called: where it lies, or its class."""
    data = config["data"]
    return str(data.get("path") or data.get("identifier") or data["_target_"].rpartition(".")[2]) if data else ""


def retrieval(runs: Sequence[Run]) -> Built:
    """The share of digits by length and place of the key."""
    rows: list[Row] = []
    for run in runs:
        for name, value in run.evaluation()[1].items():
            score, *place = name.split("/")
            if len(place) == 2:
                at = {"x": int(place[0]), "y": place[1], "group": score}
                rows.append(at | {"level": run.label(factors_of(runs)), "value": value})
    cells = summarize(rows, ["level", "group", "x", "y"])
    return charts.heat(cells, "prompt length, tokens", "place of the key", "share") if cells else None


def perplexities(runs: Sequence[Run]) -> Built:
    """What each model scored by each protocol, and what the protocol was."""
    rows: list[list[Any]] = []
    for run in runs:
        for row in run.tables.get("protocol", ()):
            name = row["protocol"]
            values = [run.value(f"{name}/{measure}") for measure in ("loss", "perplexity", "bits_per_byte")]
            told = [row[key] for key in ("window", "stride", "tokens", "bytes")]
            rows.append([run.factors["model"], run.factors.get("data", ""), name, *told, *values])
    columns = ["model", "data", "protocol", "window", "stride", "tokens", "bytes"]
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
            "Look down a column for the place of the key and along a row for the length, which is in each model's own "
            "tokens: 1 is every digit, every key.",
            retrieval,
        ),
    ),
    "evaluate_language_modeling": (
        Figure(
            "Perplexity by protocol",
            "Compare models with different tokens by bits per byte alone, and only over the same data.",
            perplexities,
        ),
    ),
    "evaluate_summarization": (
        Figure("ROUGE beside the baselines", "Look at whether a model does better than the baselines.", scores),
        Figure("Sample outputs", "Look at whether an output says what its reference says.", samples),
    ),
}


def command(runs: Sequence[Run]) -> str:
    """The command of the last evaluation of a kind."""
    config = runs[-1].record.config
    return f"python -m experiments.evaluate model={config['pretrained']} task={config['name'].removeprefix(PREFIX)}"
