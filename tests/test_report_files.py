"""What is written beside the page: the records as CSV, charts as chart_files; and colours that stand out."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import altair as alt
import pytest
from PIL import Image

from experiments.ledger.verdicts import judge
from experiments.recording.record import Record
from experiments.report.export.chart_files import chart_files
from experiments.report.export.records_csv import harmless, records_csv
from experiments.report.figures import charts
from experiments.report.figures.chart import log_ticks
from experiments.report.figures.palette import theme
from experiments.report.figures.paper_tables import paper_tables
from experiments.report.figures.sections import sections
from experiments.report.runs import finished_runs
from experiments.sweeps.grid import Job
from tests.made_up import CLAIMS, made_up, write


def test_the_csv_holds_every_run_and_no_formula(tmp_path: Path) -> None:
    evidence = made_up(tmp_path)
    job = Job("positions", "laptop", str(tmp_path), (("position", '=HYPERLINK("x")'), ("seed", "0")))
    evidence[job] = Record(tmp_path / "runs" / "positions" / "formula")
    write(evidence[job], job)
    rows = list(csv.DictReader(io.StringIO(records_csv(evidence))))
    assert len(rows) == len(evidence)
    assert {row["status"] for row in rows} == {"finished", "failed"}
    last = rows[-1]
    assert last["position"] == '\'=HYPERLINK("x")' and last["experiment"] == "positions"
    assert (last["parameters"], last["tokens"], last["version of torch"]) == ("918656", "819200", "t")
    metrics = evidence[job].summary["metrics"]
    assert float(last["nonoverlapping/loss"]) == metrics["nonoverlapping/loss"]
    assert [harmless(text) for text in ("-1", "+x", "@x", "x=1", -1)] == ["-1", "'+x", "'@x", "x=1", -1]


def test_levels_of_one_colour_are_told_apart_by_their_dashes() -> None:
    rows = [{"level": f"l{n}", "group": "", "step": 1, "n": 1, "mean": n, "low": n, "high": n} for n in range(1, 11)]
    scales = [
        charts.curves(rows, "loss", "level", "").spec["layer"][1]["encoding"][key]["scale"]["range"]
        for key in ("color", "strokeDash")
    ]
    drawn = [(colour, tuple(dash)) for colour, dash in zip(*scales)]
    assert len(set(drawn)) == 10


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([1, 20.4], [1, 2, 5, 10, 20]),
        ([0.8, 0, 30, math.inf], [1, 2, 5, 10, 20]),
        ([1e-3, 50], [1e-3, 0.01, 0.1, 1, 10]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_round(values: list[float], ticks: list[float]) -> None:
    assert log_ticks(values) == pytest.approx(ticks)
    assert log_ticks([1.1, 1.9]) is alt.Undefined


@pytest.mark.parametrize(
    ("lengths", "ticks"), [([1, 2, 4, 8, 16], [1, 2, 4, 8, 16]), (range(1, 21), [1, 2, 5, 10, 20])]
)
def test_few_lengths_have_a_tick_each(lengths: Sequence[int], ticks: list[int]) -> None:
    rows = [{"x": length, "value": 1.0, "level": "rope"} for length in lengths]
    assert charts.lines(rows, "length", "loss", "position", True).spec["encoding"]["x"]["axis"]["values"] == ticks


def test_a_map_shows_the_metric_itself_and_no_empty_column() -> None:
    row = {"level": "relu", "group": "", "x": 4.0, "y": "gain 1", "n": 8, "mean": 7.39}
    chart = charts.heat([row], "depth", "initial gain", "imbalance", highest=30)
    assert chart.spec["datasets"]["cells"][0]["mean"] == 7.39 and chart.table is not None
    assert chart.table.columns == ["level", "depth", "initial gain", "n", "imbalance"]
    assert charts.heat([row | {"group": "before"}], "depth", "gain", "found").table.columns[1] == "evaluation"


@pytest.mark.parametrize("dark", [False, True])
def test_texts_and_lines_stand_out_from_their_ground(dark: bool) -> None:
    """WCAG 2.2: 4.5 to 1 for texts, 3 to 1 for what is drawn."""
    colours = theme(dark)
    texts = [(name, ground) for name in ("--ink", "--soft", "--accent", "--open") for ground in ("--paper", "--raised")]
    texts += [(name, f"{name}-tint") for name in ("--good", "--bad", "--open", "--none")]
    drawn = [(f"--series-{index}", "--paper") for index in range(1, 9)]
    drawn += [(name, "--paper") for name in ("--good", "--bad", "--none")]
    for pairs, least in ((texts, 4.5), (drawn, 3.0)):
        for front, ground in pairs:
            assert contrast(colours[front], colours[ground]) >= least, (front, ground)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, by WCAG 2.2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.slow
def test_charts_are_written_as_chart_files_with_colours_of_their_own(tmp_path: Path) -> None:
    evidence = {job: record for job, record in made_up(tmp_path).items() if job.experiment in ("positions", "passkey")}
    found = sections([judge(claim, evidence) for claim in CLAIMS], evidence, "laptop")
    shown = [
        shown
        for experiments in found.values()
        for experiment in experiments
        for shown in experiment.shown
        if shown.chart
    ]
    names = [one.name for one in shown]
    assert len(names) == len(set(names)) and "positions-test-loss-by-position-scheme" in names
    for one in shown:
        assert one.chart is not None
        files = chart_files(one.chart.spec)
        assert b"<svg" in files["svg"] and b"var(--" not in files["svg"] and b"<script" not in files["svg"]
        image = Image.open(io.BytesIO(files["png"]))
        assert image.width > 400 and len(image.convert("RGB").getcolors(2**20) or []) > 3
        assert files["pdf"].startswith(b"%PDF")


def test_the_papers_tables_have_our_results_beside(tmp_path: Path) -> None:
    found = paper_tables(finished_runs(made_up(tmp_path)))
    perplexities, passkeys, summaries = found.values()
    rows = {row[0]: row[1:] for row in perplexities.rows}
    assert rows["transformer xl"][2:] == ["50M", 11.88, 2.42] and all(rows["transformer xl"][:2])
    assert rows["full"][2:] == [None] * 3 and all(rows["full"][:2])
    assert passkeys.rows and {row[0] for row in summaries.rows} == {"Infini (delta)", "BART"}
    assert paper_tables({}) == {}
