"""Execute the ledger's runs in processes on this machine, or on a cluster through submitit."""

import concurrent.futures
import multiprocessing
import os
import signal
import time
from collections.abc import Generator
from io import StringIO
from pathlib import Path

import submitit
from rich.console import Console

from experiments.config.checks import check_slurm
from experiments.config.choices import ON_GPUS, nearest
from experiments.config.errors import ConfigError, HeldError, cause_of, first_line
from experiments.sweeps.call import HELD, exit_with
from experiments.sweeps.grid import Job
from experiments.training.execute import execute
from experiments.training.loop import Interrupted

LAUNCHERS = ("slurm", "local")  # local: submitit's processes on this machine, for tests
LONGEST = 24 * 60  # time limit of a cluster job in minutes; a run that exceeds it resumes from its checkpoint
POLL = 1.0  # seconds between two checks of the cluster's jobs
stopped = False  # whether this worker was told to stop: jobs that it has been sent already are not begun
Ended = Generator[tuple[Job, str]]  # each job when it ends, with its error message ("" if it succeeded)


def on_this_machine(todo: list[Job], workers: int) -> Ended:
    """Execute `workers` jobs at a time, each on one thread. Runs that other processes hold come last, once these are
    done. Closing the generator early stops runs in training. Raises ChildProcessError if a process was killed."""
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=begin_worker, initargs=(os.getpid(),)
    )
    try:
        for wait in (False, True):
            futures = {pool.submit(run_job, job, wait): job for job in todo}
            todo = []
            for future in concurrent.futures.as_completed(futures):
                if future.result() == HELD:
                    todo.append(futures[future])
                else:
                    yield futures[future], future.result()
    except concurrent.futures.BrokenExecutor as error:
        message = "a worker process was killed, possibly out of memory: run the same command again to resume"
        raise ChildProcessError(message) from error
    except (KeyboardInterrupt, GeneratorExit):
        for child in multiprocessing.active_children():
            child.terminate()  # SIGTERM: a run in training saves a checkpoint
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def on_cluster(todo: list[Job], launcher: str, folder: Path) -> Ended:
    """Submit each run as one cluster job. Closing the generator early cancels the remaining jobs.

    folder: for submitit's files. Partition, account and so on come from sbatch's environment variables, for example
    SBATCH_PARTITION. Raises ConfigError for an unknown launcher.
    """
    if launcher not in LAUNCHERS:
        raise ConfigError(f"LAUNCHER={launcher}: no such launcher; {nearest(launcher, LAUNCHERS)}")
    if launcher == "slurm":
        check_slurm(f"LAUNCHER={launcher}")
    executor = submitit.AutoExecutor(folder, cluster=launcher)
    gpus = 1 if todo[0].scale in ON_GPUS else 0
    executor.update_parameters(timeout_min=LONGEST, cpus_per_task=4 if gpus else 1, gpus_per_node=gpus)
    with executor.batch():
        waiting = [(job, executor.submit(run_job, job)) for job in todo]
    return collected(waiting)


def collected(waiting: list[tuple[Job, submitit.Job[str]]]) -> Ended:
    """Yield each cluster job when it ends."""
    try:
        while waiting:
            time.sleep(POLL)
            for job, submitted in [pair for pair in waiting if pair[1].done()]:
                waiting.remove((job, submitted))
                error = submitted.exception()
                yield job, failure(error) if error else submitted.result()
    finally:
        for _, submitted in waiting:
            submitted.cancel(check=False)


def begin_worker(parent: int) -> None:
    """Ignore Ctrl-C, which the parent handles, and exit when the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_with(parent)


def run_job(job: Job, wait: bool = True) -> str:
    """Execute one job; returns its error message, "" if it succeeded.

    wait: if another process holds the run, wait for it; otherwise return HELD.
    """
    global stopped
    if stopped:
        return "interrupted"
    try:
        spec = job.spec()
        spec.config["threads"] = 1
        execute(spec, Console(markup=False, file=StringIO()), wait)
    except Interrupted:
        stopped = True
        return "interrupted"
    except HeldError:
        return HELD
    except Exception as error:
        return failure(error)
    return ""


def failure(error: BaseException) -> str:
    """The type and first line of an error, or of what Hydra wraps."""
    return f"{type(cause_of(error)).__name__}: {first_line(error)}"
