"""The experiments of each idea with their figures, as the page shows them and `make figures` writes them."""

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from experiments.ledger.evidence import Evidence
from experiments.ledger.verdicts import Verdict
from experiments.report.figures import own_models
from experiments.report.figures.chart import Chart, Table
from experiments.report.figures.figure import Figure
from experiments.report.figures.registry import figures, title
from experiments.report.runs import Run, finished_runs


@dataclass
class Shown:
    """A figure with what was built for it: a chart, a table, or neither while runs are missing.

    name: of a file with the chart, without its extension. number: of the figure on the page, from 1.
    """

    figure: Figure
    name: str
    number: int
    chart: Chart | None
    table: Table | None


@dataclass
class Experiment:
    """An experiment in the section of one idea: the claims that rest on it, its runs, its command and its figures."""

    name: str
    title: str
    claims: list[str]
    finished: int
    planned: int
    command: str
    shown: list[Shown] = field(default_factory=list)

    @property
    def charts(self) -> list[Shown]:
        """The figures that are charts."""
        return [shown for shown in self.shown if shown.chart]

    @property
    def tables(self) -> list[Shown]:
        """The figures that are tables."""
        return [shown for shown in self.shown if shown.table]

    @property
    def missing(self) -> list[Shown]:
        """The figures that no finished run has recorded."""
        return [shown for shown in self.shown if not (shown.chart or shown.table)]


def sections(
    verdicts: Sequence[Verdict], evidence: Evidence, scale: str, own: Evidence | None = None
) -> dict[str, list[Experiment]]:
    """The experiments under each idea, in the order of the claims that rest on them; then the user's own models."""
    runs = finished_runs(evidence)
    planned = Counter(job.experiment for job, record in evidence.items() if not job.added or record.finished)
    outputs = {job.experiment: job.outputs for job in evidence}
    found: dict[str, list[Experiment]] = {}
    number = 0
    for idea in dict.fromkeys(verdict.claim.idea for verdict in verdicts):
        claims = [verdict.claim for verdict in verdicts if verdict.claim.idea == idea]
        comparisons = [(claim.id, comparison) for claim in claims for comparison in claim.comparisons]
        for name in dict.fromkeys(comparison.experiment for _, comparison in comparisons):
            resting = list(dict.fromkeys(id for id, comparison in comparisons if comparison.experiment == name))
            done = runs.get(name, [])
            command = rerun_command(name, scale, outputs.get(name, "outputs"))
            experiment = Experiment(name, title(name), resting, len(done), planned[name], command)
            metrics = [comparison.metric for _, comparison in comparisons if comparison.experiment == name]
            for figure in figures(name, metrics):
                if figure.idea in ("", idea):
                    number += 1
                    experiment.shown.append(show(figure, name, number, done))
            found.setdefault(idea, []).append(experiment)
    return found | (own_section(own, number) if own else {})


def own_section(own: Evidence, number: int) -> dict[str, list[Experiment]]:
    """The section of the user's own models; the number of its first figure follows `number`."""
    experiments = []
    for name, runs in finished_runs(own).items():
        command = own_models.command(runs)
        experiment = Experiment(name, own_models.TITLES[name], [], len(runs), len(runs), command)
        for figure in own_models.FIGURES[name]:
            number += 1
            experiment.shown.append(show(figure, name, number, runs))
        experiments.append(experiment)
    return {own_models.SECTION: experiments}


def show(figure: Figure, experiment: str, number: int, runs: list[Run]) -> Shown:
    """Build a figure of an experiment from its finished runs."""
    name = re.sub(r"[^a-z0-9_]+", "-", f"{experiment} {figure.title}".lower()).strip("-")
    built = figure.build(runs) if runs else None
    chart = built if isinstance(built, Chart) else None
    return Shown(figure, name, number, chart, built if isinstance(built, Table) else None)


def rerun_command(experiment: str, scale: str, outputs: str) -> str:
    """The command that runs what an experiment lacks."""
    folder = "" if outputs == "outputs" else f" --outputs {shlex.quote(outputs)}"
    return f"python -m experiments.reproduce --scale {shlex.quote(scale)} --only {shlex.quote(experiment)}{folder}"
