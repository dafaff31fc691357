"""`python -m experiments.run experiment=… [group=choice] [key=value] [-m]`: one run, or a sweep of them."""

import sys
from collections.abc import Sequence

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from experiments.config import CONF, check_overrides, quote_text, register
from experiments.execution import USER_ERRORS, execute, plan
from experiments.records import Record
from experiments.training import Interrupted

FLAGS_WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-name", "-cn", "--info", "-i"}


class Jobs:
    """The jobs of one call of the program and how each ended."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.ended: list[tuple[str, str]] = []
        self.stopped = False

    def __call__(self, composed: DictConfig) -> None:
        """One job. An error is told and kept, so that the other jobs of a sweep go on."""
        overrides = list(HydraConfig.get().overrides.task)
        name = " ".join(overrides)
        if self.stopped:
            self.ended.append((name, "not started"))
            return
        try:
            record = execute(plan(composed, overrides), self.console)
            print_result(self.console, record)
            self.ended.append((name, "finished"))
        except (Interrupted, KeyboardInterrupt):
            self.stopped = True
            self.console.print("stopped; the same command goes on from here", style="yellow")
            self.ended.append((name, "interrupted"))
        except USER_ERRORS as error:
            fail(self.console, error)
            self.ended.append((name, "failed"))
        except Exception:
            self.console.print_exception()
            self.ended.append((name, "failed"))

    def exit_code(self) -> int:
        if len(self.ended) > 1:
            table = Table("job", "status")
            for name, status in self.ended:
                table.add_row(name, status)
            self.console.print(table)
        statuses = {status for _, status in self.ended}
        return 130 if self.stopped else 1 if "failed" in statuses else 0


def print_result(console: Console, record: Record) -> None:
    """Tell where a record lies and its foremost metrics: those with the shortest paths, and no single gates."""
    named = sorted(record.summary["metrics"].items(), key=lambda metric: metric[0].count("/"))
    told = [f"{name} {value:.4g}" for name, value in named if not name.startswith("gates/")]
    metrics = ", ".join(told[:10])
    console.print(f"{record.folder}: {metrics}", highlight=False)


def fail(console: Console, error: BaseException) -> None:
    """Tell an error in one line."""
    console.print(f"error: {' '.join(str(error).split())}", style="red", markup=False, soft_wrap=True)


def sort_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's own flags with their values, and the overrides: Hydra cannot read flags between overrides."""
    flags: list[str] = []
    overrides: list[str] = []
    for argument in arguments:
        belongs_to_flag = flags and flags[-1] in FLAGS_WITH_VALUE
        (flags if argument.startswith("-") or belongs_to_flag else overrides).append(argument)
    return flags, [quote_text(override) for override in overrides]


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments say; returns the exit code."""
    jobs = Jobs()
    register()
    flags, overrides = sort_arguments(arguments)
    try:
        check_overrides(overrides, multirun=bool({"-m", "--multirun"} & set(flags)))
    except USER_ERRORS as error:
        fail(jobs.console, error)
        return 1
    sys.argv[1:] = [*flags, *overrides]
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(jobs)()
    return jobs.exit_code()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
