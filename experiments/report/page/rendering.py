"""The page as text. Values from records are escaped by the template, or are data of a chart."""

import base64
import hashlib
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from experiments.config.cache import CACHES
from experiments.ledger.claims import paper
from experiments.ledger.evidence import Evidence
from experiments.ledger.excluded_records import ExcludedRecords
from experiments.ledger.verdicts import Verdict
from experiments.recording.record import ENDED
from experiments.report import numbers
from experiments.report.figures import forest, own_models
from experiments.report.figures.chart import Table
from experiments.report.figures.palette import COLOURS, CONFIG, theme
from experiments.report.figures.paper_tables import paper_tables
from experiments.report.figures.sections import sections
from experiments.report.page.ledger_rows import ledger_rows
from experiments.report.page.run_comparison import (
    MOST_POINTS,
    comparable_runs,
    comparison_chart,
    level_chart,
    level_statistics,
)
from experiments.report.runs import finished_runs
from experiments.report.verdict_marks import MARKS, VERDICT_OF
from tasks.data.source import cached

FOLDER = Path(__file__).resolve().parent
SMALL = (8, 5)  # rows and columns of a table that is not folded
OWN_QUESTION = "How do your own models perform on the same tasks?"


def render(
    verdicts: list[Verdict],
    evidence: Evidence,
    scale: str,
    own: Evidence | None = None,
    excluded: Sequence[ExcludedRecords] = (),
) -> str:
    """The page. own: evaluations of the user's own models. excluded: records that the ledger does not use."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters |= {"number": numbers.number, "claimed": numbers.claimed, "quantity": quantity}
    compared = comparable_runs(evidence | (own or {}))
    statuses = Counter(record.status for record in evidence.values())
    begun = len(evidence) > statuses["new"] or bool(own)
    found = sections(verdicts, evidence, scale, own) if begun else {}
    scripts = ("page.js", "run_comparison.js", "level_comparison.js") if begun else ("page.js",)
    script = "".join(source(name) for name in scripts)
    by_idea = {
        idea: [verdict for verdict in verdicts if verdict.claim.idea == idea]
        for idea in dict.fromkeys([*(verdict.claim.idea for verdict in verdicts), *found])
    }
    return environment.get_template("page.html.jinja").render(
        scale=scale,
        written=time.strftime("%Y-%m-%d %H:%M %Z"),
        verdicts=verdicts,
        by_idea=by_idea,
        experiments=found,
        paper_tables=paper_tables(finished_runs(evidence)),
        compared_runs=compared,
        example=example(evidence),
        level_statistics=level_statistics(compared),
        level_curves=level_chart(),
        compared_curves=comparison_chart(),
        most_points=MOST_POINTS,
        paper=paper(),
        questions=paper().ideas | {own_models.SECTION: OWN_QUESTION},
        planned=sum(not job.added or record.finished for job, record in evidence.items()),
        statuses=statuses,
        ended=sum(statuses[status] for status in ENDED),
        begun=begun,
        start=start_command(scale, evidence),
        failures=list(failures(evidence)),
        excluded=excluded,
        marks=MARKS,
        verdict_of=VERDICT_OF,
        ledger_rows=ledger_rows,
        is_small=is_small,
        forest=forest,
        config=CONFIG,
        light=theme(),
        style=Markup(COLOURS.read_text(encoding="utf-8") + source("style.css")),
        library=Markup(library()),
        script=Markup(script),
        policy=policy([library(), script]),
    )


def source(name: str) -> str:
    """A file of the page's own style or script."""
    return (FOLDER / name).read_text(encoding="utf-8")


@cache
def library() -> str:
    """Vega, Vega-Lite and vega-embed as one script, for the page to hold."""
    file = CACHES / "page" / f"vega-{version('vl-convert-python')}.js"
    bundle = cached(file, lambda: vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").encode())
    return bundle.decode().replace("</script", "<\\/script")


def policy(scripts: Sequence[str]) -> str:
    """A content security policy: the page may run its own scripts, identified by their hashes, and load nothing."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}"


def quantity(count: int, noun: str) -> str:
    """A count with its noun, in the plural unless it is one."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def is_small(table: Table) -> bool:
    """Whether a table fits a phone's screen without scrolling, so that it need not be folded."""
    rows, columns = SMALL
    return len(table.rows) <= rows and len(table.columns) <= columns and not table.prose


def start_command(scale: str, evidence: Evidence) -> str:
    """The command that makes the first records."""
    outputs = next((job.outputs for job in evidence), "outputs")
    settings = [("SCALE", scale, "laptop"), ("OUTPUTS", outputs, "outputs")]
    return " ".join(
        ["make reproduce", *(f"{name}={shlex.quote(value)}" for name, value, usual in settings if value != usual)]
    )


def example(evidence: Evidence) -> str:
    """What one may type to find runs."""
    job = next((job for job, record in evidence.items() if record.finished and len(job.factors) > 1), None)
    return f"{job.experiment} {job.factors[0][1]} seed={job.seed}" if job else ""


def failures(evidence: Evidence) -> Iterator[tuple[str, Any]]:
    """The runs that failed, each with the last line of its traceback."""
    for job, record in evidence.items():
        if record.status == "failed":
            lines = record.read("status.json").get("traceback", "").strip().splitlines()
            levels = " ".join(f"{name}={level}" for name, level in job.factors)
            yield f"{job.experiment} {levels}", lines[-1] if lines else ""
