"""Time and memory of ledger and page from many records."""

import itertools
import math
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.config.cache import SEED
from experiments.ledger.claims import claims, compared_factors
from experiments.ledger.evidence import EARLIER
from experiments.ledger.runs import EXACT, gather, missing_trials
from experiments.recording import environment
from experiments.recording.contents import FORMAT, STATUS, digest_of, to_json, to_line, to_yaml
from experiments.recording.look import index_of
from experiments.sweeps.grid import Job

COUNTS = (1_000, 10_000, 30_000)
METRICS = [
    "accuracy",
    *(f"{protocol}/{name}" for protocol in ("nonoverlapping", "sliding") for name in ("loss", "perplexity")),
]
LEDGER = "from experiments.reproduce import main; main(['--outputs', {outputs!r}, '--no-runs'])"
EXACT_RUNS = "from experiments.reproduce import main; main(['--outputs', {outputs!r}, '--only', 'properties'])"


def records_table(console: Console) -> Table:
    """Seconds and memory at laptop scale: without an index, after one record has changed, and after none has."""
    table = Table("records", "ledger and page", "time, s", "peak memory, MB", "page, MB", title="many records")
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as outputs, console.status(f"writing {count:,} records"):
            written = write_records(outputs, count)
            measured(EXACT_RUNS.format(outputs=outputs))
            index_of(outputs).unlink(missing_ok=True)
            for label in ("without an index", "one record changed", "nothing changed"):
                if label == "one record changed":
                    next(Path(outputs, "runs").glob("*/*/metrics.jsonl")).touch()
                seconds, megabytes = measured(LEDGER.format(outputs=outputs))
                size = (Path(outputs) / "report" / "index.html").stat().st_size / 1e6
                table.add_row(f"{written:,}", label, f"{seconds:.1f}", f"{megabytes:.0f}", f"{size:.1f}")
    return table


def measured(code: str) -> tuple[float, float]:
    """Seconds and peak memory in MB of a fresh process that runs this code."""
    peak = "import resource, sys; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    started = time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", f"{code}; {peak}"], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    return time.perf_counter() - started, int(ran.stderr.splitlines()[-1]) * unit / 1e6


def write_records(outputs: str, count: int) -> int:
    """Write finished records of the ledger: trials, then one seed after the other up to `count`; how many there are."""
    writer, experiments = Writer(), list(compared_factors(claims()))
    while trials := missing_trials(gather("laptop", outputs), experiments):
        for job in trials:
            writer.write(job)
    sweep = [job for job, record in gather("laptop", outputs).items() if not record.finished]
    first = [job for job in sweep if job.seed == 0 and job.experiment != EXACT]
    levels = {job.level for job in sweep if job.seed}
    deciding = [job for job in first if job.level in levels]
    seeds = (job.with_seed(seed) for seed in range(1, count) for job in deciding)
    for job in itertools.islice(itertools.chain(first, seeds), count - writer.written):
        writer.write(job)
    return writer.written


class Writer:
    """Writes finished records whose metrics are near the claims' thresholds."""

    def __init__(self) -> None:
        self.written, self.chance = 0, random.Random(0)
        self.metrics: dict[str, dict[str, float]] = {}
        self.configs: dict[Job, bytes] = {}
        for comparison in (each for claim in claims() for each in claim.comparisons):
            own = self.metrics.setdefault(comparison.experiment, dict.fromkeys(METRICS, 4.0))
            own |= {comparison.metric: comparison.threshold}
            own |= {comparison.trials: 20} if isinstance(comparison.trials, str) else {}

    def write(self, job: Job) -> None:
        """Write the record of a job, without the guarantees of a real one, which take longer."""
        if job.level not in self.configs:
            self.configs[job.level] = to_yaml(job.config(SEED))
        record, steps = job.record, job.effort or 100
        near = {name: value + self.chance.gauss(0, 0.1) for name, value in self.metrics[job.experiment].items()}
        losses = ((step, 4 + 4 * math.exp(-5 * step / steps)) for step in range(10, steps + 1, 10))
        counts = {"parameters": 524_928, "tokens": 409_600, "steps": steps, "seconds": 12.3, "state_floats": 32_768}
        evaluations = {str(int(share * steps)): near for share in EARLIER}
        files = {
            "config.yaml": self.configs[job.level].replace(str(SEED).encode(), str(job.seed).encode()),
            "environment.json": to_json(environment.describe(record.identity)),
            "metrics.jsonl": b"".join(to_line({"step": step, "train/loss": loss}) for step, loss in losses),
            "summary.json": to_json(counts | {"metrics": near, "evaluations": evaluations}),
            "tables.json": to_json({}),
        }
        digests = {name: digest_of(content) for name, content in files.items()}
        status = {"status": "finished", "format": FORMAT, "run": record.id, "digests": digests}
        record.folder.mkdir(parents=True)
        for name, content in (files | {STATUS: to_json(status)}).items():
            (record.folder / name).write_bytes(content)
        self.written += 1
