"""The figures of passkey retrieval, and the paper's table beside our results at the same lengths."""

import math
from collections.abc import Sequence

from experiments.ledger.intervals import average, mean
from experiments.report.figures import charts
from experiments.report.figures.builders import Built, retrieval_map
from experiments.report.figures.chart import Table
from experiments.report.figures.figure import Figure
from experiments.report.runs import Row, Run, mean_and_range, spaced

DEPTHS = ("start", "middle", "end")
STAGES = {"before tuning": "first", "after tuning": "last"}

# Share of digit tokens in %, start / middle / end, by the length in tokens (Munkhdalai et al. 2024, table 3).
PAPER_TUNED = 5_000  # tokens of the prompts that the paper tunes on
PAPER: dict[tuple[str, str], dict[int, str]] = {
    stage: dict(zip((2**15, 2**17, 2**18, 2**19, 2**20), row.split(", ")))
    for stage, row in {
        ("infini_linear", "before tuning"): "14 / 13 / 98, 11 / 14 / 100, 6 / 3 / 100, 6 / 7 / 99, 8 / 6 / 98",
        ("infini_delta", "before tuning"): "13 / 11 / 99, 6 / 9 / 99, 7 / 5 / 99, 6 / 8 / 97, 7 / 6 / 97",
        ("infini_linear", "after tuning"): (
            "100 / 100 / 100, 100 / 100 / 100, 100 / 100 / 100, 97 / 99 / 100, 96 / 94 / 100"
        ),
        ("infini_delta", "after tuning"): (
            "100 / 100 / 100, 100 / 100 / 99, 100 / 100 / 99, 100 / 100 / 100, 100 / 100 / 100"
        ),
    }.items()
}
ALIKE = 1.25  # the paper's figure at about the same multiple of the tuned length, at most so many times it


def lengths_of(runs: Sequence[Run]) -> list[int]:
    """The prompt lengths, in tokens, that the runs were evaluated at."""
    names = [name.split("/") for run in runs for name in run.evaluation()[1]]
    found = {parts[1] for parts in names if parts[0] == "digits" and len(parts) == 3}
    return sorted(int(length) for length in found if length.isdecimal())


def tuned_length(run: Run) -> int:
    """The tokens of the prompts that a run is tuned on at last; 0 if its configuration does not say."""
    match run.record.config["task"]:
        case {"segment_length": int(length), "stages": [*_, {"shortest": int(shortest), "doublings": int(doublings)}]}:
            return length * shortest * 2 ** min(max(doublings, 0), 64)
    return 0


def beside_the_paper(runs: Sequence[Run]) -> Built:
    """Digits in % at start / middle / end by stage, model and length: here, and in the paper at the same multiple of
    the length that is tuned on."""
    rows: list[list[str | int]] = []
    for stage, which in STAGES.items():
        for attention in dict.fromkeys(run.factors["attention"] for run in runs):
            own = [run for run in runs if run.factors["attention"] == attention]
            for length in lengths_of(runs):
                found = [run.evaluation(which)[1] for run in own]
                cells = [[metrics[name] for metrics in found if name in metrics] for name in cell_names(length)]
                if all(cells) and tuned_length(own[0]) > 0:
                    here = " / ".join(f"{100 * average(values):.0f}" for values in cells)
                    times = length / tuned_length(own[0])
                    printed = [
                        f"{cell} at {tokens / PAPER_TUNED:.0f} ×"
                        for tokens, cell in PAPER.get((attention, stage), {}).items()
                        if max(ratio := tokens / PAPER_TUNED / times, 1 / ratio) < ALIKE
                    ]
                    rows.append([stage, spaced(attention), length, f"{times:.3g} ×", here, "; ".join(printed) or "–"])
    columns = ["stage", "model", "tokens", "of the tuned length", "here, %", "paper, %"]
    return Table(columns, rows) if rows else None


def cell_names(length: int) -> list[str]:
    """The metrics of a length, one for each depth."""
    return [f"digits/{length}/{depth}" for depth in DEPTHS]


def by_length(runs: Sequence[Run]) -> Built:
    """The share of digits found through memory, the mean over the depths, by the length of the prompt."""
    points = [
        (spaced(run.factors["attention"]), stage, float(length), metrics[f"through_memory/{length}/digits"])
        for stage, which in STAGES.items()
        for run in runs
        if which == "last" or len(run.evaluations()) > 1
        for metrics in [run.evaluation(which)[1]]
        for length in lengths_of(runs)
        if f"through_memory/{length}/digits" in metrics
    ]
    rows = sorted(mean_and_range(points), key=lambda row: row["step"])
    return (
        charts.curves(rows, "share of digits", "attention", "stage", "prompt length, tokens", True) if points else None
    )


def delta_against_linear(runs: Sequence[Run]) -> Built:
    """After tuning, digits found through memory by length: linear, delta, and their difference paired by seed."""
    found: dict[tuple[str, int], Row] = {(run.factors["attention"], run.job.seed): run.evaluation()[1] for run in runs}
    seeds = [seed for attention, seed in found if attention == "infini_delta" and ("infini_linear", seed) in found]
    rows: list[list[float | None]] = []
    for length in lengths_of(runs):
        name = f"through_memory/{length}/digits"
        sides = [
            [found[attention, seed].get(name) for seed in seeds] for attention in ("infini_linear", "infini_delta")
        ]
        pairs = [pair for pair in zip(*sides) if None not in pair]
        if pairs:
            linear, delta = (average(side) for side in zip(*pairs))
            gain = mean([ours - theirs for theirs, ours in pairs])
            low, high = (end if math.isfinite(end) else None for end in (gain.low, gain.high))
            rows.append([length, linear, delta, gain.n, gain.mean, low, high])
    columns = ["tokens", "linear", "linear + delta", "n", "difference", "95 % interval, from", "to"]
    return Table(columns, rows, interval=(4, 5, 6)) if rows else None


def answers(runs: Sequence[Run]) -> Built:
    """What every model answers to the first prompt of each length and depth; of its first finished seed."""
    rows: list[list[object]] = []
    for name in dict.fromkeys(run.factors["attention"] for run in runs):
        run = next(run for run in runs if run.factors["attention"] == name)
        rows += [
            [spaced(name), row["length"], row["depth"], row["first_key"], str(row["first_answer"]).replace(" ", "")]
            for row in run.tables.get("retrieval", [])
            if "first_answer" in row and row.get("memory", "on") == "on"
        ]
    return Table(["attention", "tokens", "key at the", "key", "answer"], rows) if rows else None


RETRIEVED = Figure(
    "Digits of the passkey found",
    "Columns are prompt lengths and rows positions of the key. Look at where the share falls from 1, every digit, to "
    "0.1, chance. With memory off, every gate of the same model is shut. Means over seeds.",
    retrieval_map("digits"),
)
BY_LENGTH = Figure(
    "Digits found through memory by length",
    "Look at how far to the right a line stays at 1; 0.1 is chance. Keys in the last segment do not count.",
    by_length,
)
DELTA = Figure(
    "What the delta rule adds, by length",
    "Look at where the interval of the difference leaves zero. After tuning, keys outside the last segment.",
    delta_against_linear,
)
ANSWERS = Figure(
    "Answers to single prompts",
    "Look at whether a wrong answer has some digits of the key, or none. One prompt a length and depth.",
    answers,
)
PASSKEY_FIGURES: dict[str, tuple[Figure, ...]] = {
    "passkey": (
        RETRIEVED,
        BY_LENGTH,
        Figure(
            "Beside the paper's table 3",
            "Look at start and middle: a key at the end lies in the last segment, which local attention reads. Lengths "
            "are compared by how many times as long they are as the prompts tuned on. Means over seeds.",
            beside_the_paper,
        ),
        DELTA,
        ANSWERS,
    ),
    "passkey_gaps": (RETRIEVED, BY_LENGTH, DELTA, ANSWERS),
    "passkey_controls": (
        RETRIEVED,
        Figure(
            "Digits found beyond the last segment by length",
            "Look at which lines are above chance, 0.1, and how far. Keys in the last segment do not count.",
            by_length,
        ),
        ANSWERS,
    ),
}
