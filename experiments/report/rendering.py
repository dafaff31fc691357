"""The page: one file that needs no network. What comes from records is escaped by the template, or data of a chart."""

import base64
import hashlib
import re
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from experiments.ledger.evidence import Evidence
from experiments.ledger.excluded_records import ExcludedRecords
from experiments.ledger.verdicts import Verdict
from experiments.report import forest, numbers, own_models
from experiments.report.charts import Chart, Table
from experiments.report.comparison import POINTS, comparable, compared_curves
from experiments.report.data import Run, finished_runs
from experiments.report.figures import Figure, figures, title
from experiments.report.marks import MARKS
from experiments.report.palette import CONFIG, theme

FOLDER = Path(__file__).resolve().parent
QUESTIONS = {
    "Swish": "Does Swish, x · σ(βx), do better than ReLU and the other activations, in image classification and in a "
    "transformer's feed-forward, and does a search find it?",
    "RoPE": "Do rotary positions train faster and end at a lower loss than learned, sinusoidal and relative ones, and "
    "do they carry beyond the trained length?",
    "Infini-attention": "Does a compressive memory of fixed size do what attention to the whole of a long text does: "
    "language modelling, retrieval, summaries?",
    own_models.SECTION: "How do models of your own do on the same tasks?",
}


@dataclass
class Shown:
    """A figure with what was built for it: a chart, a table, or neither while runs are missing.

    name: what a file with a picture of it is called, without its ending.
    """

    figure: Figure
    name: str
    number: int
    chart: Chart | None
    table: Table | None


@dataclass
class Experiment:
    """An experiment's place on the page."""

    name: str
    title: str
    claims: list[str]
    finished: int
    planned: int
    command: str
    shown: list[Shown] = field(default_factory=list)


def render(
    verdicts: list[Verdict],
    evidence: Evidence,
    scale: str,
    own: Evidence | None = None,
    others: Sequence[ExcludedRecords] = (),
) -> str:
    """The page as text. own: the evaluations of models of the user's own. others: records that are left out."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters |= {
        name: getattr(numbers, name) for name in ("number", "duration", "count", "spread", "claimed")
    }
    sections = ideas(verdicts, evidence, scale)
    charts = sum(len(experiment.shown) for experiments in sections.values() for experiment in experiments)
    sections |= evaluated(own, charts) if own else {}
    statuses = Counter(record.status for record in evidence.values())
    begun = len(evidence) > statuses["new"] or bool(own)
    compared = {"compared_runs": comparable(evidence | (own or {})), "compared_curves": compared_curves()}
    parts = ("script.js", "compare.js") if begun else ("script.js",)
    own_script = "".join((FOLDER / name).read_text(encoding="utf-8") for name in parts)
    return environment.get_template("page.html.jinja").render(
        scale=scale,
        written=time.strftime("%Y-%m-%d %H:%M %Z"),
        verdicts=verdicts,
        ideas=sections if begun else {},
        **compared,
        points=POINTS,
        questions=QUESTIONS,
        planned=sum(not job.added or record.finished for job, record in evidence.items()),
        statuses=statuses,
        begun=begun,
        start=start(scale, evidence),
        failures=list(failures(evidence)),
        others=others,
        marks=MARKS,
        bars=forest.bars,
        forest=forest,
        config=CONFIG,
        light=theme(),
        style=Markup((FOLDER / "style.css").read_text(encoding="utf-8")),
        library=Markup(library()),
        script=Markup(own_script),
        policy=policy([library(), own_script]),
    )


@cache
def library() -> str:
    """Vega, Vega-Lite and vega-embed as one script, for the page to hold."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")


def policy(scripts: Sequence[str]) -> str:
    """The page may run its own scripts, known by their hashes, and load nothing."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}"


def ideas(verdicts: list[Verdict], evidence: Evidence, scale: str) -> dict[str, list[Experiment]]:
    """The experiments under each idea, in the order of the claims that rest on them."""
    runs = finished_runs(evidence)
    planned = Counter(job.experiment for job, record in evidence.items() if not job.added or record.finished)
    outputs = {job.experiment: job.outputs for job in evidence}
    found: dict[str, list[Experiment]] = {}
    chart_number = 0
    for idea in dict.fromkeys(verdict.claim.idea for verdict in verdicts):
        claims = [verdict.claim for verdict in verdicts if verdict.claim.idea == idea]
        comparisons = [(claim.id, comparison) for claim in claims for comparison in claim.comparisons]
        for name in dict.fromkeys(comparison.experiment for _, comparison in comparisons):
            resting = list(dict.fromkeys(id for id, comparison in comparisons if comparison.experiment == name))
            done = runs.get(name, [])
            command = rerun(name, scale, outputs.get(name, "outputs"))
            experiment = Experiment(name, title(name), resting, len(done), planned[name], command)
            metrics = [comparison.metric for _, comparison in comparisons if comparison.experiment == name]
            for figure in figures(name, metrics):
                if figure.idea in ("", idea):
                    chart_number += 1
                    experiment.shown.append(show(figure, name, chart_number, done))
            found.setdefault(idea, []).append(experiment)
    return found


def evaluated(own: Evidence, chart_number: int) -> dict[str, list[Experiment]]:
    """The section of the models of the user's own, its figures numbered from the one after `chart_number` on."""
    experiments = []
    for name, runs in finished_runs(own).items():
        command = own_models.command(runs)
        experiment = Experiment(name, own_models.TITLES[name], [], len(runs), len(runs), command)
        for figure in own_models.FIGURES[name]:
            chart_number += 1
            experiment.shown.append(show(figure, name, chart_number, runs))
        experiments.append(experiment)
    return {own_models.SECTION: experiments}


def show(figure: Figure, experiment: str, chart_number: int, runs: list[Run]) -> Shown:
    """Build a figure of an experiment from the runs there are."""
    name = re.sub(r"[^a-z0-9_]+", "-", f"{experiment} {figure.title}".lower()).strip("-")
    built = figure.build(runs) if runs else None
    chart = built if isinstance(built, Chart) else None
    return Shown(figure, name, chart_number, chart, built if isinstance(built, Table) else None)


def start(scale: str, evidence: Evidence) -> str:
    """The command that makes the first records."""
    outputs = next((job.outputs for job in evidence), "outputs")
    settings = [("SCALE", scale, "laptop"), ("OUTPUTS", outputs, "outputs")]
    return " ".join(
        ["make reproduce", *(f"{name}={shlex.quote(value)}" for name, value, usual in settings if value != usual)]
    )


def rerun(experiment: str, scale: str, outputs: str) -> str:
    """The command that runs what an experiment lacks."""
    place = "" if outputs == "outputs" else f" --outputs {shlex.quote(outputs)}"
    return f"python -m experiments.reproduce --scale {shlex.quote(scale)} --only {shlex.quote(experiment)}{place}"


def failures(evidence: Evidence) -> Iterator[tuple[str, Any]]:
    """The runs that failed, each with the last line of what it failed of."""
    for job, record in evidence.items():
        status = record.read("status.json") or {}
        if status.get("status") == "failed":
            lines = str(status.get("traceback", "")).strip().splitlines()
            levels = " ".join(f"{name}={level}" for name, level in job.factors)
            yield f"{job.experiment} {levels}", lines[-1] if lines else ""
