"""How long ledger and page take from a thousand records, and how large the page is."""

import json
import math
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from experiments import environment
from experiments.claims import claims
from experiments.grid import Job
from experiments.ledger import Evidence, judge_all
from experiments.report.page.files import write_report
from experiments.reproduce import gather
from tasks.data.source import write_atomically

RECORDS = 1_000
SEEDS = 100  # what is added to a job's seed for another one of its kind


def page_table() -> Table:
    """Seconds from nothing in memory to ledger and page at laptop scale, and the page's size."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        planned = gather("laptop", folder)
        looked_up = time.perf_counter() - started
        evidence = made_up(list(planned), RECORDS)
        started = time.perf_counter()
        page = write_report(judge_all(evidence), evidence, "laptop", Path(folder))
        written = time.perf_counter() - started
        megabytes = page.stat().st_size / 1e6
    title = f"page from {len(evidence):,} records"
    table = Table("jobs looked up, s", "ledger and page, s", "together, s", "page, MB", title=title)
    table.add_row(f"{looked_up:.1f}", f"{written:.1f}", f"{looked_up + written:.1f}", f"{megabytes:.2f}")
    return table


def made_up(jobs: Sequence[Job], count: int) -> Evidence:
    """So many finished records of these jobs and of others like them, with values near the claims' thresholds."""
    asked: dict[str, dict[str, float]] = {}
    for claim in claims():
        for comparison in claim.comparisons:
            asked.setdefault(comparison.experiment, {})[comparison.metric] = comparison.threshold
    chance = random.Random(0)
    evidence: Evidence = {}
    for index in range(count):
        job = jobs[index % len(jobs)]
        seed = job.seed + SEEDS * (index // len(jobs))
        factors = tuple((name, str(seed) if name == "seed" else level) for name, level in job.factors)
        job = replace(job, factors=factors)
        planned = job.plan()
        evidence[job] = record = planned.record
        record.begin(planned.config, environment.describe(record.identity))
        steps = planned.config["training"]["steps"] or 100
        curve = range(10, steps + 1, planned.config["training"]["log_every"])
        losses = [(step, 4 + 4 * math.exp(-5 * step / steps) + chance.gauss(0, 0.02)) for step in curve]
        lines = [json.dumps({"step": step, "train/loss": loss}) for step, loss in losses]
        write_atomically(record.metrics_file, "".join(f"{line}\n" for line in lines).encode())
        names = (
            "accuracy",
            *(f"{way}/{name}" for way in ("nonoverlapping", "sliding") for name in ("loss", "perplexity")),
        )
        values = dict.fromkeys(names, 4.0) | asked[job.experiment]
        metrics = {name: value + chance.gauss(0, 0.1) for name, value in values.items()}
        counts = {"parameters": 524_928, "tokens": 409_600, "steps": steps, "seconds": 12.3, "state_floats": 32_768}
        record.finish(counts | {"metrics": metrics, "evaluations": {str(steps): metrics}}, {})
    return evidence
