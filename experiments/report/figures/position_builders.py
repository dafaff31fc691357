"""Charts of position schemes: beyond the trained length, during extension, and their cost."""

from collections.abc import Sequence

from experiments.report.figures import charts
from experiments.report.figures.builders import Builder, Built
from experiments.report.runs import Row, Run, mean_and_range, spaced, summarize

HERE, PAPER = "here", "ALiBi paper, 247M"

# Validation perplexity by length in trained lengths of 512 (Press et al. 2022, table 2).
PAPER_PERPLEXITY: dict[str, dict[float, float]] = {
    "sinusoidal": {1: 20.05, 1012 / 512: 43.54, 3512 / 512: 178.97, 10512 / 512: 341.53},
    "rope": {1: 20.07, 1012 / 512: 21.37, 3512 / 512: 35.54, 10512 / 512: 60.77},
    "relative_bias": {1: 19.65, 1012 / 512: 18.79, 3512 / 512: 22.91, 10512 / 512: 52.95},
    "alibi": {1: 19.73, 1012 / 512: 18.73, 3512 / 512: 18.40, 10512 / 512: 18.32},
}

# Words per second relative to sinusoidal (table 1).
PAPER_SPEED: dict[str, dict[str, float]] = {
    "training": {"rope": 17.7 / 26.0, "relative_bias": 13.0 / 26.0, "alibi": 25.8 / 26.0},
    "evaluation": {"rope": 39.4 / 77.8, "relative_bias": 20.2 / 77.8, "alibi": 76.4 / 77.8},
}


def beyond_the_trained_length(protocol: str, beside_the_paper: bool) -> Builder:
    """Perplexity at a multiple of the trained length, as a multiple of that at the trained length itself."""

    def build(runs: Sequence[Run]) -> Built:
        points: list[tuple[str, str, float, float]] = []
        for run in runs:
            level, first = run.factors["position"], run.value(f"{protocol}/perplexity")
            for name in run.evaluation()[1]:
                kind, *parts = name.split("/")
                if kind == protocol and parts[-1:] == ["perplexity"] and first:
                    times = parts[0].removesuffix("x") if len(parts) == 2 else "1"
                    if not times.isdecimal():
                        continue
                    step = float(times)
                    points.append((spaced(level), HERE, step, (run.value(name) or 0.0) / first))
        if beside_the_paper:
            for level, curve in PAPER_PERPLEXITY.items():
                points += [(spaced(level), PAPER, step, value / curve[1]) for step, value in curve.items()]
        title = "perplexity / that at the trained length"
        rows = sorted(mean_and_range(points), key=lambda row: row["step"])
        return charts.curves(rows, title, "scheme", "measured", "length / trained length", True) if points else None

    return build


def loss_by_window_position(runs: Sequence[Run]) -> Built:
    """The loss of tokens by their position in the longest window that a model was evaluated with."""
    points = [
        (spaced(run.factors["position"]), "", float(row["position"]), row["loss"])
        for run in runs
        for row in run.rows("by_position", numbers=["position", "loss"])
    ]
    title, across = "test loss, nats per token", "position in the longest window, tokens"
    return charts.curves(mean_and_range(points), title, "scheme", "", across) if points else None


def most_extended(runs: Sequence[Run]) -> list[Run]:
    """The runs with the greatest extension."""
    greatest = max((int(run.factors["extension"]) for run in runs), default=0)
    return [run for run in runs if int(run.factors["extension"]) == greatest]


def by_evaluation(metric: str, title: str) -> Builder:
    """A metric by the step of the evaluation, at the greatest extension."""

    def build(runs: Sequence[Run]) -> Built:
        points = [
            (spaced(run.factors["position"]), "", float(step), metrics[metric])
            for run in most_extended(runs)
            for step, metrics in run.evaluations()
            if metric in metrics
        ]
        return charts.curves(mean_and_range(points), title, "scheme", "") if points else None

    return build


def passkeys_by_length(runs: Sequence[Run]) -> Built:
    """The share of a passkey's digits that is found after fine-tuning, by the length of the prompt."""
    points = [
        (spaced(run.factors["position"]), "", float(name.split("/")[1]), value)
        for run in most_extended(runs)
        for name, value in run.evaluation()[1].items()
        if name.startswith("digits/") and name.split("/")[1].isdecimal()
    ]
    rows = sorted(mean_and_range(points), key=lambda row: row["step"])
    return charts.curves(rows, "share of digits", "scheme", "", "prompt length, tokens") if points else None


def speed(work: str) -> Builder:
    """Tokens per second of every scheme at the greatest length, relative to sinusoidal, beside the paper's."""

    def build(runs: Sequence[Run]) -> Built:
        rows: list[Row] = []
        for run in runs:
            costs = run.rows("costs", ["work", "scheme"], ["length", "speed"])
            costs = [row for row in costs if row["work"] == work]
            longest = max((row["length"] for row in costs), default=0)
            rows += [
                {"level": spaced(row["scheme"]), "group": HERE, "seed": run.job.seed, "value": row["speed"]}
                for row in costs
                if row["length"] == longest
            ]
        if not rows:
            return None
        rows += [
            {"level": spaced(scheme), "group": PAPER, "seed": "", "value": value}
            for scheme, value in PAPER_SPEED.get(work, {}).items()
        ]
        return charts.bars(rows, summarize(rows, ["level", "group"]), "tokens per second, × sinusoidal", "scheme")

    return build
