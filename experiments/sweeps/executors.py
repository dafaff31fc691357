"""Who works off the ledger's runs: processes of this machine, or a cluster's scheduler through submitit."""

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

from experiments.config.choices import nearest
from experiments.config.errors import ConfigError, HeldError, first_line
from experiments.sweeps.call import HELD, end_with
from experiments.sweeps.grid import ON_GPUS, Job
from experiments.training.execute import execute
from experiments.training.loop import Interrupted

LAUNCHERS = ("slurm", "local")  # local: submitit's own processes on this machine, as it is tried out
LONGEST = 24 * 60  # minutes of a run on a cluster; one that is cut off goes on from its checkpoint
POLL = 1.0  # seconds between two looks at a cluster's runs
Ended = Generator[tuple[Job, str]]  # each job as it ends, with what it failed of, or nothing


def on_this_machine(todo: list[Job], workers: int) -> Ended:
    """Several at a time, each on one processor thread; those that other processes are at come last, when these are done
    with them. Closed before its end, it has runs in training stop. Raises ChildProcessError if a process was killed."""
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=begin_worker, initargs=(os.getpid(),)
    )
    try:
        for wait in (False, True):
            futures = {pool.submit(work, job, wait): job for job in todo}
            todo = []
            for future in concurrent.futures.as_completed(futures):
                if future.result() == HELD:
                    todo.append(futures[future])
                else:
                    yield futures[future], future.result()
    except concurrent.futures.BrokenExecutor as error:
        told = "a process of the runs was killed, for want of memory perhaps: the same command goes on from here"
        raise ChildProcessError(told) from error
    except (KeyboardInterrupt, GeneratorExit):
        for child in multiprocessing.active_children():
            child.terminate()  # SIGTERM: a run in training leaves a checkpoint
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def on_cluster(todo: list[Job], launcher: str, folder: Path) -> Ended:
    """Each as a job of its own; the folder holds submitit's files. Closed before its end, it cancels the rest.

    Partition, account and the like are those of the environment, as sbatch knows them: SBATCH_PARTITION and so on.
    Raises ConfigError for a launcher that is not known.
    """
    if launcher not in LAUNCHERS:
        raise ConfigError(f"LAUNCHER={launcher}: no such launcher; {nearest(launcher, LAUNCHERS)}")
    executor = submitit.AutoExecutor(folder, cluster=launcher)
    gpus = 1 if todo[0].scale in ON_GPUS else 0
    executor.update_parameters(timeout_min=LONGEST, cpus_per_task=4 if gpus else 1, gpus_per_node=gpus)
    with executor.batch():
        waiting = [(job, executor.submit(work, job)) for job in todo]
    return collected(waiting)


def collected(waiting: list[tuple[Job, submitit.Job[str]]]) -> Ended:
    """Each job of a cluster as it ends."""
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
    """Leave Ctrl-C to the parent and to the training loop, and do not outlive the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)


def work(job: Job, wait: bool = True) -> str:
    """Run one job; returns what it failed of, nothing if it did not. wait: if another process is at it, until that is
    done; HELD if not."""
    try:
        planned = job.spec()
        planned.config["threads"] = 1
        execute(planned, Console(file=StringIO()), wait)
    except Interrupted:
        return "interrupted"
    except HeldError:
        return HELD
    except Exception as error:
        return failure(error)
    return ""


def failure(error: BaseException) -> str:
    """An error's type and first line."""
    return f"{type(error).__name__}: {first_line(error)}"
