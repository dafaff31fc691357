"""From the runs of an experiment to a chart or a table: builders that name a metric and a factor, not an experiment."""

from collections.abc import Callable, Sequence

from experiments.report import charts
from experiments.report.charts import Chart, Table
from experiments.report.data import (
    Row,
    Run,
    factors_of,
    final_rows,
    learning_rows,
    short,
    summarize,
)

Built = Chart | Table | None
Builder = Callable[[Sequence[Run]], Built]
SAMPLES = 6  # rows of the table of sample outputs
EXCERPT = 180  # characters of a document or an output in it


def split_factors(runs: Sequence[Run], level: str) -> tuple[list[str], list[str]]:
    """The factor that gives the lines, the first if it is not named, and all others."""
    names = factors_of(runs)
    first = level if level in names else (names[0] if names else "")
    return [first], [name for name in names if name != first]


def final_values(metric: str, title: str, level: str = "") -> Builder:
    """The last value of a metric by level, with a point for every seed, the mean and its interval."""

    def build(runs: Sequence[Run]) -> Built:
        first, rest = split_factors(runs, level)
        rows = final_rows(runs, metric, first, rest)
        means = summarize(rows, ["level", "group"])
        return charts.dots(rows, means, title, short(first[0]), ", ".join(map(short, rest))) if means else None

    return build


def learning_curves(level: str = "", title: str = "training loss, nats per token") -> Builder:
    """The smoothed training loss by step and level."""

    def build(runs: Sequence[Run]) -> Built:
        first, rest = split_factors(runs, level)
        rows = learning_rows(runs, first, rest)
        return charts.curves(rows, title, short(first[0]), ", ".join(map(short, rest))) if rows else None

    return build


def against(x: str, metric: str, x_title: str, title: str, level: str) -> Builder:
    """One number of a run against another."""

    def build(runs: Sequence[Run]) -> Built:
        rows = [row | {"x": run.value(x)} for run, row in zip(runs, final_rows(runs, metric, [level]))]
        rows = [row for row in rows if row["x"] and row["value"] is not None]  # a logarithmic axis has no zero
        means = summarize(rows, ["level", "x"])
        return charts.scatter(rows, means, x_title, title, level) if means else None

    return build


def retrieval(prefix: str) -> Builder:
    """The metrics named prefix/<length>/<depth>, of the first and of the last evaluation."""

    def build(runs: Sequence[Run]) -> Built:
        rows: list[Row] = []
        for run in runs:
            first, last = run.evaluation("first"), run.evaluation("last")
            both = [("before tuning", first)] if first[0] != last[0] else []
            for said, (step, metrics) in [*both, ("after tuning", last)]:
                for name, value in metrics.items():
                    kind, *place = name.split("/")
                    if kind == prefix and len(place) == 2 and place[0].isdigit():
                        at = {"x": int(place[0]), "y": place[1], "group": f"{said} (step {step:,})"}
                        rows.append(at | {"level": run.label(factors_of(runs)), "value": value})
        cells = summarize(rows, ["level", "group", "x", "y"])
        return charts.heat(cells, "prompt length, tokens", "place of the key", f"share of {prefix}") if cells else None

    return build


def rouge(runs: Sequence[Run]) -> Built:
    """ROUGE of every model and of the baselines that the runs measured on the same documents."""
    rows: list[Row] = []
    for name in ("rouge1", "rouge2", "rougeL", "overall"):
        at = {"level": name.replace("rouge", "ROUGE-")}
        rows += [
            at | {"group": run.label(factors_of(runs)), "seed": run.job.seed, "value": run.value(name)} for run in runs
        ]
        for baseline in dict.fromkeys(
            key.split("/")[1] for run in runs for key in run.evaluation()[1] if key.startswith("baseline/")
        ):
            values = [(run, run.value(f"baseline/{baseline}/{name}")) for run in runs]
            group = f"{baseline} (baseline)"
            rows += [at | {"group": group, "seed": run.job.seed, "value": value} for run, value in values]
    rows = [row for row in rows if row["value"] is not None]
    means = summarize(rows, ["level", "group"])
    return charts.bars(rows, means, "score, points of 100", "measure") if means else None


def samples(runs: Sequence[Run]) -> Built:
    """What the models wrote, beside the reference: of each model the first seed that is finished."""
    first: dict[str, Run] = {}
    for run in runs:
        if run.tables.get("samples"):
            first.setdefault(run.label(factors_of(runs)), run)
    if not first:
        return None
    written: dict[str, dict[str, str]] = {}
    references: dict[str, str] = {}
    for name, run in first.items():
        for row in run.tables["samples"]:
            document = str(row.get("document", ""))
            references[document] = str(row.get("reference", ""))
            written.setdefault(document, {})[name] = excerpt(str(row.get("summary", ""))) or "(nothing)"
    rows = [
        [excerpt(document), excerpt(references[document]), *(texts.get(name, "–") for name in first)]
        for document, texts in list(written.items())[:SAMPLES]
    ]
    return Table(["document, its beginning", "reference", *first], rows, prose=True)


def excerpt(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT else text[:EXCERPT].rsplit(" ", 1)[0] + " …"


def recorded(name: str) -> Builder:
    """A table as a run recorded it."""

    def build(runs: Sequence[Run]) -> Built:
        rows = next((run.tables[name] for run in runs if run.tables.get(name)), None)
        if not rows:
            return None
        # JSON with sorted keys has lost the order of the columns: what a row is called goes first
        columns = sorted(rows[0], key=lambda key: isinstance(rows[0][key], int | float))
        return Table(
            [column.replace("_", " ") for column in columns], [[row.get(key) for key in columns] for row in rows]
        )

    return build


def listed(prefix: str, name: str, value: str) -> Builder:
    """The metrics named prefix/<something>, as a table."""

    def build(runs: Sequence[Run]) -> Built:
        found: dict[str, float] = {}
        for run in runs:
            metrics = run.evaluation()[1].items()
            found |= {key.split("/", 1)[1]: number for key, number in metrics if key.startswith(f"{prefix}/")}
        rows = [[key.replace("_", " "), number] for key, number in sorted(found.items(), key=lambda pair: pair[1])]
        return Table([name, value], rows) if rows else None

    return build


def swish_curves(runs: Sequence[Run]) -> Built:
    rows = [row for run in runs for row in run.tables.get("curves", ())]
    rows = [{"level": row["beta"], "x": row["x"], "value": row["value"]} for row in rows]
    return charts.lines(rows, "x", "Swish(x) = x · σ(βx)", "β") if rows else None


def prefix_scores(runs: Sequence[Run]) -> Built:
    """The score of one pair of words, in the sentence alone and after a prefix, under every scheme."""
    rows = [
        {"level": row["scheme"].replace("_", " "), "group": key, "value": value}
        for run in runs
        for row in run.tables.get("scores", ())
        for key, value in row.items()
        if key != "scheme"
    ]
    return charts.pairs(rows, "score of a query with a key", "scheme") if rows else None
