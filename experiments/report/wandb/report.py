"""The ledger as a W&B report: verdicts, each claim with its figures, each experiment with its panels."""

import re
from collections import Counter
from collections.abc import Sequence

import wandb_workspaces.reports.v2 as wr
from wandb_workspaces import expr
from wandb_workspaces.reports.v2.interface import BlockTypes

from experiments.ledger.effects import NOT_RUN
from experiments.ledger.verdicts import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Finding, Verdict
from experiments.report.figures.registry import title
from experiments.report.runs import Run
from experiments.report.terminal import count, interval
from experiments.report.wandb.panels import laid_out, panels

FINAL = ("nonoverlapping/loss",)  # drawn wherever it is measured, even if no claim rests on it
SMOKE = "**Smoke scale runs the pipeline end to end; its numbers are meaningless.**"


def report(verdicts: Sequence[Verdict], runs: dict[str, list[Run]], scale: str, entity: str, project: str) -> wr.Report:
    """The report. With an entity, its grids name their project, which makes W&B contact its server."""
    ideas = dict.fromkeys(verdict.claim.idea for verdict in verdicts)
    location = (entity, project) if entity else ("", "")
    blocks: list[BlockTypes] = [wr.TableOfContents(), wr.H1("Verdicts"), wr.MarkdownBlock(overview(verdicts, scale))]
    shown: set[str] = set()
    for idea in ideas:
        chosen = [verdict for verdict in verdicts if verdict.claim.idea == idea]
        blocks.append(wr.H1(idea))
        for verdict in chosen:
            blocks += [wr.H2(f"{verdict.claim.id}: {verdict.verdict}"), wr.MarkdownBlock(account(verdict))]
        for name in experiments_of(chosen):
            if runs.get(name) and name not in shown:
                shown.add(name)
                ids = [run.record.id for run in runs[name]]
                runset = wr.Runset(*location, name=title(name), filters=expr.And(expr.Metric("ID").isin(ids)))
                grid = wr.PanelGrid([runset], panels=laid_out(panels(name, runs[name], metrics_of(name, verdicts))))
                blocks += [wr.H2(title(name)), wr.MarkdownBlock(about(name, runs[name], verdicts)), grid]
    return wr.Report(project, entity, f"The ledger at {scale} scale", blocks=blocks, width="fluid")


def experiments_of(verdicts: Sequence[Verdict]) -> list[str]:
    """The experiments that claims rest on, in their order."""
    return list(dict.fromkeys(c.experiment for verdict in verdicts for c in verdict.claim.comparisons))


def metrics_of(experiment: str, verdicts: Sequence[Verdict]) -> list[str]:
    """The final metrics of an experiment that claims rest on."""
    resting = [c.metric for verdict in verdicts for c in verdict.claim.comparisons if c.experiment == experiment]
    return [metric for metric in dict.fromkeys([*resting, *FINAL]) if not metric.startswith("train/")]


def overview(verdicts: Sequence[Verdict], scale: str) -> str:
    """The number of claims by verdict, and a table of them."""
    counts = Counter(verdict.verdict for verdict in verdicts)
    order = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_RUN)
    counted = ", ".join(f"{counts[name]} {name}" for name in order if counts[name])
    rows = [
        (f"**{verdict.claim.id}**", escaped(verdict.claim.statement), f"**{verdict.verdict}**") for verdict in verdicts
    ]
    note = [SMOKE] if scale == "smoke" else []
    return "\n\n".join([*note, f"{len(verdicts)} claims: {counted}.", table(("", "claim", "verdict"), rows)])


def account(verdict: Verdict) -> str:
    """A claim: its statement and source, the paper's figures beside ours, and what differs."""
    claim = verdict.claim
    columns = ("what is compared", "paper", "here, and its interval", "seeds", "outcome")
    texts = [
        f"**{escaped(claim.statement)}**",
        f"*{escaped(claim.source)}*: {escaped(claim.paper)}",
        table(columns, [row(finding) for finding in verdict.findings]),
        f"**What differs.** {escaped(claim.differs)}",
    ]
    texts += [f"**In the literature.** {escaped(claim.literature)}"] if claim.literature else []
    texts += [f"**Note.** {escaped('; '.join(verdict.notes))}."] if verdict.notes else []
    return "\n\n".join(texts)


def row(finding: Finding) -> tuple[str, ...]:
    """The result of one comparison, as the cells of a row."""
    comparison = finding.comparison
    context = "" if comparison.deciding else " (does not decide)"
    cells = (comparison.label + context, comparison.paper, f"{interval(finding)} {comparison.unit}".strip())
    return (*map(escaped, cells), escaped(count(finding)), finding.outcome)


def about(experiment: str, runs: Sequence[Run], verdicts: Sequence[Verdict]) -> str:
    """The runs and the levels of an experiment, and the claims that rest on it."""
    claims = [verdict for verdict in verdicts if experiment in experiments_of([verdict])]
    resting = ", ".join(f"{verdict.claim.id} {verdict.verdict}" for verdict in claims)
    levels: dict[str, list[str]] = {}
    for run in runs:
        for factor, level in run.job.factors:
            levels.setdefault(factor, []).append(level)
    factors = "; ".join(f"{name}: {', '.join(dict.fromkeys(found))}" for name, found in levels.items())
    return f"`{experiment}`: {len(runs)} runs. {escaped(factors)}. Claims: {resting}."


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; its cells are escaped already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    """A text on one line, escaped so that Markdown shows it as it is."""
    return re.sub(r"([\\`*_\[\]<>|~&$#])", r"\\\1", " ".join(text.split()))
