"""Charts and tables of summarization: scores by model and by length read, and sample outputs."""

from collections.abc import Sequence

from experiments.ledger.intervals import average
from experiments.report.figures import charts
from experiments.report.figures.builders import Built
from experiments.report.figures.chart import Table
from experiments.report.runs import Row, Run, mean_and_range, summarize

NAMES = {
    "decoder": "Infini (delta)",
    "decoder_window": "window",
    "decoder_truncated": "full, truncated",
    "bart": "BART",
    "bart_unlimiformer": "BART + Unlimiformer",
    "primera": "PRIMERA",
    "primera_unlimiformer": "PRIMERA + Unlimiformer",
}
SCORES = ("rouge1", "rouge2", "rougeL", "rougeLsum_by_stops", "overall", "overall/low", "overall/high")
SAMPLES = 6  # rows of the table of sample outputs
EXCERPT = 180  # characters of a document or an output in it


def model_of(run: Run) -> str:
    """The name of the model of a run."""
    return NAMES.get(run.factors["model"], run.factors["model"])


def baselines(runs: Sequence[Run]) -> list[str]:
    """The baselines that the runs measured on the same documents."""
    names = [name.split("/")[1] for run in runs for name in run.evaluation()[1] if name.startswith("baseline/")]
    return list(dict.fromkeys(names))


def overall_scores(runs: Sequence[Run]) -> Built:
    """The overall score of every model and of the baselines."""
    rows: list[Row] = [
        {"level": model_of(run), "group": "", "seed": run.job.seed, "value": run.value("overall")} for run in runs
    ]
    for name in baselines(runs):
        values = [(run.job.seed, run.value(f"baseline/{name}/overall")) for run in runs]
        rows += [{"level": f"{name} (no model)", "group": "", "seed": s, "value": v} for s, v in dict(values).items()]
    means = summarize(rows, ["level", "group"])
    return charts.dots(rows, means, "overall ROUGE, points of 100", "model", "") if means else None


def scores(runs: Sequence[Run]) -> Built:
    """Every score of every model, means over the seeds, with parameters and run time."""
    rows: list[list[object]] = []
    for name in dict.fromkeys(map(model_of, runs)):
        own = [run for run in runs if model_of(run) == name]
        summaries = [run.record.summary for run in own]
        found = [[run.value(score) for score in SCORES] for run in own]
        rows.append([
            name,
            len(own),
            summaries[0]["parameters"],
            average(summary["seconds"] for summary in summaries),
            *mean_columns(found),
        ])  # fmt: skip
    for name in baselines(runs):
        found = [[run.value(f"baseline/{name}/{score}") for score in SCORES] for run in runs]
        rows.append([f"{name} (no model)", None, None, None, *mean_columns(found)])
    titles = ["ROUGE-1", "ROUGE-2", "ROUGE-L", "ROUGE-Lsum, split at stops", "overall", "from", "to"]
    columns = ["model", "seeds", "parameters", "seconds", *titles]
    return Table(columns, rows, interval=(8, 9, 10)) if rows else None


def mean_columns(rows: Sequence[Sequence[float | None]]) -> list[float | None]:
    """The mean of the values in every column, None for an empty one."""
    columns = [[value for value in column if value is not None] for column in zip(*rows)]
    return [average(column) if column else None for column in columns]


def overall_by_length(runs: Sequence[Run]) -> Built:
    """The overall score of every model by how many tokens of each document it reads."""
    points = [
        (model_of(run), "", float(row["tokens"]), float(row["overall"]))
        for run in runs
        for row in run.rows("by_length", numbers=["tokens", "overall"])
    ]
    rows = sorted(mean_and_range(points), key=lambda row: row["step"])
    return charts.curves(rows, "overall ROUGE", "model", "", "tokens of the document") if points else None


def samples(runs: Sequence[Run]) -> Built:
    """The outputs of the models beside the reference: of each model the first finished seed."""
    first: dict[str, Run] = {}
    for run in runs:
        if run.tables.get("samples"):
            first.setdefault(model_of(run), run)
    if not first:
        return None
    outputs: dict[str, dict[str, str]] = {}
    references: dict[str, str] = {}
    for name, run in first.items():
        for row in run.tables["samples"]:
            document = str(row.get("document", ""))
            references[document] = str(row.get("reference", ""))
            outputs.setdefault(document, {})[name] = excerpt(str(row.get("summary", ""))) or "(nothing)"
    rows = [
        [excerpt(document), excerpt(references[document]), *(texts.get(name, "–") for name in first)]
        for document, texts in list(outputs.items())[:SAMPLES]
    ]
    return Table(["beginning of the document", "reference", *first], rows, prose=True)


def excerpt(text: str) -> str:
    """The beginning of a text, on one line."""
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT else text[:EXCERPT].rsplit(" ", 1)[0] + " …"
