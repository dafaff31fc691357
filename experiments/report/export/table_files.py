"""The ledger, and the means of each experiment, as tables for a paper: LaTeX, Markdown and CSV."""

from collections.abc import Sequence
from pathlib import Path

from experiments.ledger.claims import claims
from experiments.ledger.evidence import Evidence
from experiments.ledger.levels import Result, levels, varying
from experiments.ledger.verdicts import Verdict
from experiments.recording.metrics import is_lower_better, main_metric, meaning
from experiments.report.export.readme_table import measured
from experiments.report.export.text_tables import FORMATS, written
from experiments.report.level_table import with_interval
from experiments.report.numbers import MISSING, column_format
from experiments.report.runs import finished_runs
from experiments.report.terminal import count
from tasks.data.source import write_atomically

Cells = tuple[list[str], list[list[str]], list[tuple[int, int]]]  # columns, rows, and the cells that stand out
LEDGER = ["claim", "statement", "verdict", "comparison", "paper", "here", "seeds", "outcome"]


def write_tables(verdicts: Sequence[Verdict], evidence: Evidence, outputs: str) -> tuple[Path, int]:
    """Write report/tables/<name>.tex, .md and .csv under `outputs`: ledger, and one for each experiment with a result.

    Returns the folder and the number of tables.
    """
    tables = {"ledger": ledger_cells(verdicts)}
    for experiment, runs in finished_runs(evidence).items():
        results = [Result({**run.factors}, run.job.seed, run.record) for run in runs if not run.record.diverged]
        for result in results:
            result.factors.pop("seed", None)
        if results:
            tables[experiment] = experiment_cells(experiment, results)
    folder = Path(outputs) / "report" / "tables"
    for name, (columns, rows, bold) in tables.items():
        for form, extension in FORMATS.items():
            write_atomically(folder / f"{name}.{extension}", written(columns, rows, form, bold).encode())
    return folder, len(tables)


def ledger_cells(verdicts: Sequence[Verdict]) -> Cells:
    """A row for every comparison that a verdict rests on."""
    rows = list[list[str]]()
    for verdict in verdicts:
        for finding in verdict.findings:
            claim, comparison = verdict.claim, finding.comparison
            if comparison.deciding:
                here = [
                    comparison.label,
                    comparison.paper or MISSING,
                    measured(finding),
                    count(finding),
                    finding.outcome,
                ]
                rows.append([claim.id, claim.statement, verdict.verdict, *here])
    return LEDGER, rows, []


def experiment_cells(experiment: str, results: Sequence[Result]) -> Cells:
    """A row for every level, in the order of the sweep, and a column for every metric that claims compare: its mean
    over the seeds with a 95 % interval. The best is bold if its difference to the next is decided."""
    config, found = results[0].record.config, results[0].record.summary
    claimed = [each.metric for claim in claims() for each in claim.comparisons if each.experiment == experiment]
    known = found["metrics"] | found
    metrics = [name for name in dict.fromkeys([main_metric(config, found["metrics"]), *claimed]) if name in known]
    names = varying(results)
    keys = list(dict.fromkeys(tuple(result.factors.get(name, "") for name in names) for result in results))
    columns, rows, bold = [*names, "seeds"], [[*key, ""] for key in keys], list[tuple[int, int]]()
    for metric in metrics:
        own = levels(results, names, metric, is_lower_better(config, metric))
        form = column_format([level.estimate.mean for level in own], [level.half_width for level in own])
        unit = meaning(metric).unit
        columns.append(f"{metric} ({unit})" if unit else metric)
        by_key = {tuple(level.factors.values()): level for level in own}
        for key, row in zip(keys, rows):
            level = by_key.get(key)
            row.append(with_interval(level.estimate, form) if level else MISSING)
            row[len(names)] = row[len(names)] or str(level.estimate.n if level else "")
        if len(own) > 1 and own[1].decided and meaning(metric).direction:
            bold.append((keys.index(tuple(own[0].factors.values())), len(columns) - 1))
    return columns, rows, bold
