"""`make reproduce`: execute the runs that the ledger lacks, and update ledger and page as records arrive."""

import argparse
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from experiments.config.errors import USER_ERRORS, print_error
from experiments.ledger.evidence import chosen, gather, unfinished
from experiments.ledger.extra_seeds import next_seeds
from experiments.ledger.verdicts import judge_all
from experiments.report.publish import publish
from experiments.sweeps.run_jobs import run_jobs
from experiments.training.distributed import check_alone


def main(arguments: Sequence[str]) -> int:
    """Reproduce; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.reproduce", description=__doc__)
    parser.add_argument("--scale", default="laptop", help="smoke, laptop, gpu or paper")
    parser.add_argument("--only", default="", help="experiments to run, separated by commas; all if empty")
    parser.add_argument("--outputs", default="outputs")
    parser.add_argument("--no-runs", action="store_true", help="only update ledger and page from existing records")
    parser.add_argument("--seeds", type=int, default=0, help="add seeds, up to this many, until claims are decided")
    parser.add_argument("--workers", type=int, default=0, help="runs at a time (0: one per core, or one on a GPU)")
    parser.add_argument("--launcher", default="", help="slurm for a cluster; this machine if empty")
    options = parser.parse_args(arguments)
    console = Console()
    started = time.monotonic()
    try:
        check_alone("a ledger")
        with console.status("reading records"):
            evidence = gather(options.scale, options.outputs, options.seeds)
        requested = chosen(options.only, evidence)
        done, failures = 0, []
        todo = [] if options.no_runs else unfinished(evidence, requested)

        def rewrite() -> None:
            publish(evidence, options.scale, options.outputs, None)

        while todo:
            failed = run_jobs(todo, options.workers, options.launcher, rewrite, console)
            done += len(todo) - len(failed)
            failures += failed
            todo = next_seeds(judge_all(evidence), evidence, requested) if options.seeds and not failed else []
        page = publish(evidence, options.scale, options.outputs, console)
    except USER_ERRORS as error:
        print_error(console, error)
        return 1
    except KeyboardInterrupt:
        console.print("stopped; run the same command again to resume", style="yellow")
        return 130
    for job, message in failures:
        console.print(f"failed: {' '.join(job.overrides)}: {message}", style="red", markup=False, soft_wrap=True)
    console.print(f"{done} runs in {time.monotonic() - started:.0f} s; {page}", soft_wrap=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
