"""The ledger as a W&B Report: verdicts, each claim with its figures, each experiment with its panels."""

import re
from collections import Counter
from collections.abc import Sequence

import wandb_workspaces.reports.v2 as wr
from wandb_workspaces import expr
from wandb_workspaces.reports.v2.interface import BlockTypes

from experiments.ledger.verdicts import INCONCLUSIVE, NOT_REPRODUCED, NOT_RUN, REPRODUCED, Finding, Verdict
from experiments.report.data import Run
from experiments.report.figures import title
from experiments.report.terminal import count, interval
from experiments.report.wandb_panels import panels, placed

FINAL = ("nonoverlapping/loss",)  # drawn wherever it is measured, also where no claim rests on it
NO_FINDING = "**These runs are of smoke scale, a few steps each: nothing here is a finding.**"


def report(verdicts: Sequence[Verdict], runs: dict[str, list[Run]], scale: str, entity: str, project: str) -> wr.Report:
    """The report. With an entity its grids name their project, for which W&B then asks its server."""
    ideas = dict.fromkeys(verdict.claim.idea for verdict in verdicts)
    place = (entity, project) if entity else ("", "")
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
                runset = wr.Runset(*place, name=title(name), filters=expr.And(expr.Metric("ID").isin(ids)))
                grid = wr.PanelGrid([runset], panels=placed(panels(name, runs[name], metrics_of(name, verdicts))))
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
    """How the claims came out, counted and in a table."""
    counts = Counter(verdict.verdict for verdict in verdicts)
    order = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_RUN)
    said = ", ".join(f"{counts[name]} {name}" for name in order if counts[name])
    rows = [
        (f"**{verdict.claim.id}**", escaped(verdict.claim.statement), f"**{verdict.verdict}**") for verdict in verdicts
    ]
    note = [NO_FINDING] if scale == "smoke" else []
    return "\n\n".join([*note, f"{len(verdicts)} claims: {said}.", table(("", "claim", "verdict"), rows)])


def account(verdict: Verdict) -> str:
    """A claim: what is said and by whom, the paper's figures beside ours, and what differs."""
    claim = verdict.claim
    columns = ("what is compared", "paper", "here, 95 % interval", "n", "verdict")
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
    """What one comparison came to."""
    comparison = finding.comparison
    beside = "" if comparison.decides else " (shown beside)"
    cells = (comparison.label + beside, comparison.paper, f"{interval(finding)} {comparison.unit}".strip())
    return (*map(escaped, cells), escaped(count(finding)), finding.verdict)


def about(experiment: str, runs: Sequence[Run], verdicts: Sequence[Verdict]) -> str:
    """Which claims rest on an experiment, and how many runs there are of which levels."""
    claims = [verdict for verdict in verdicts if experiment in experiments_of([verdict])]
    resting = ", ".join(f"{verdict.claim.id} {verdict.verdict}" for verdict in claims)
    levels: dict[str, list[str]] = {}
    for run in runs:
        for factor, level in run.job.factors:
            levels.setdefault(factor, []).append(level)
    factors = "; ".join(f"{name}: {', '.join(dict.fromkeys(found))}" for name, found in levels.items())
    return f"`{experiment}`: {len(runs)} runs. {escaped(factors)}. Claims: {resting}."


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells that are escaped already."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    """A text in one line that Markdown shows as it is: no markup, no HTML, no table cell begins in it."""
    return re.sub(r"([\\`*_\[\]<>|~&$#])", r"\\\1", " ".join(text.split()))
