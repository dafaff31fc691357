"""Time to write ledger and page from a thousand records, and the size of the page."""

import json
import math
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from experiments.ledger.claims import claims
from experiments.ledger.evidence import Evidence
from experiments.ledger.runs import gather
from experiments.ledger.verdicts import judge_all
from experiments.recording import environment
from experiments.report.page.files import write_report
from experiments.sweeps.grid import Job
from tasks.data.source import write_atomically

RECORDS = 1_000
SEEDS = 100  # offset between the seeds of a job's copies


def page_table() -> Table:
    """Seconds to compose the jobs and to write ledger and page at laptop scale, and the page's size."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        jobs = list(gather("laptop", folder))
        gathered = time.perf_counter() - started
        evidence = synthetic_records(jobs, RECORDS)
        started = time.perf_counter()
        page = write_report(judge_all(evidence), evidence, "laptop", Path(folder))
        written = time.perf_counter() - started
        megabytes = page.stat().st_size / 1e6
    title = f"page from {len(evidence):,} records"
    table = Table("compose jobs, s", "ledger and page, s", "total, s", "page, MB", title=title)
    table.add_row(f"{gathered:.1f}", f"{written:.1f}", f"{gathered + written:.1f}", f"{megabytes:.2f}")
    return table


def synthetic_records(jobs: Sequence[Job], count: int) -> Evidence:
    """`count` finished records of these jobs and of copies with other seeds, metrics near the claims' thresholds."""
    thresholds: dict[str, dict[str, float]] = {}
    for claim in claims():
        for comparison in claim.comparisons:
            thresholds.setdefault(comparison.experiment, {})[comparison.metric] = comparison.threshold
    chance = random.Random(0)
    evidence: Evidence = {}
    for index in range(count):
        job = jobs[index % len(jobs)]
        seed = job.seed + SEEDS * (index // len(jobs))
        factors = tuple((name, str(seed) if name == "seed" else level) for name, level in job.factors)
        job = replace(job, factors=factors)
        spec = job.spec()
        evidence[job] = record = spec.record
        record.begin(spec.config, environment.describe(record.identity))
        steps = spec.config["training"]["steps"] or 100
        curve = range(10, steps + 1, spec.config["training"]["log_every"])
        losses = [(step, 4 + 4 * math.exp(-5 * step / steps) + chance.gauss(0, 0.02)) for step in curve]
        lines = [json.dumps({"step": step, "train/loss": loss}) for step, loss in losses]
        write_atomically(record.metrics_file, "".join(f"{line}\n" for line in lines).encode())
        names = (
            "accuracy",
            *(f"{protocol}/{name}" for protocol in ("nonoverlapping", "sliding") for name in ("loss", "perplexity")),
        )
        values = dict.fromkeys(names, 4.0) | thresholds[job.experiment]
        metrics = {name: value + chance.gauss(0, 0.1) for name, value in values.items()}
        counts = {"parameters": 524_928, "tokens": 409_600, "steps": steps, "seconds": 12.3, "state_floats": 32_768}
        record.finish(counts | {"metrics": metrics, "evaluations": {str(steps): metrics}}, {})
    return evidence
