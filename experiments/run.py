"""`python -m experiments.run experiment=… [group=choice] [key=value] [-m]`: one run, or a sweep of them."""

import argparse
import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from rich.console import Console

from experiments.config.checks import check_slurm
from experiments.config.choices import CONF, nearest
from experiments.config.command import search_rarely
from experiments.config.compose import check_overrides
from experiments.config.composition import compose_unchecked, hydra_at_conf
from experiments.config.errors import USER_ERRORS, ConfigError, print_error
from experiments.config.overrides import parse, quote_text
from experiments.config.plugins import take

FLAGS_WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-name", "-cn", "--info", "-i"}


ANSWERED = ("--help", "-h", "--hydra-help", "--shell-completion", "-sc")  # flags that Hydra answers by itself


def sort_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate Hydra's flags (with their values) from the overrides: Hydra cannot parse flags between overrides."""
    flags: list[str] = []
    overrides: list[str] = []
    for argument in arguments:
        belongs_to_flag = flags and flags[-1] in FLAGS_WITH_VALUE
        (flags if argument.startswith("-") or belongs_to_flag else overrides).append(argument)
    return flags, [quote_text(override) for override in overrides]


def tunes(overrides: Sequence[str], multirun: bool) -> bool:
    """Whether Optuna chooses the values of the sweep. Raises ConfigError for invalid overrides of Hydra's own settings,
    and for an interval in a grid sweep."""
    parsed = [parse(override) for override in overrides]
    own = [override for override in parsed if override.is_hydra_override()]
    chosen = {override.key_or_group: str(override.value()) for override in own if "/" in override.key_or_group}
    for group, choice in chosen.items():
        with hydra_at_conf() as loader:
            known = loader.get_group_options(group)
        if known and choice not in known:
            raise ConfigError(f"{group}={choice}: no such choice; {nearest(choice, known)}")
    if own:
        single = [each for each in parsed if each in own or not each.is_sweep_override()]
        compose_unchecked([each.input_line or "" for each in single], return_hydra_config=True)
    if chosen.get("hydra/launcher") == "submitit_slurm":
        check_slurm("hydra/launcher=submitit_slurm")
    tuned = chosen.get("hydra/sweeper") == "optuna"
    if tuned and not multirun:
        raise ConfigError("hydra/sweeper=optuna: add -m to run a study")
    for override in parsed:
        if tuned and override.key_or_group == "experiment" and override.is_sweep_override():
            raise ConfigError(f"'{override.input_line}': a study is of one experiment")
        if override.is_interval_sweep() and not tuned:
            raise ConfigError(f"'{override.input_line}' is an interval: add hydra/sweeper=optuna to search it")
    return tuned


@contextlib.contextmanager
def help_as_text() -> Iterator[None]:
    """Have argparse replace help texts that are no strings.

    Python 3.14 checks a help text when it is added, and Hydra 1.3 adds an object that is none for --shell-completion
    (facebookresearch/hydra, issue 3121).
    """
    add = argparse.ArgumentParser.add_argument

    def add_argument(parser: argparse.ArgumentParser, *names: Any, **settings: Any) -> argparse.Action:
        if not isinstance(settings.get("help", ""), str):
            settings["help"] = "see Hydra's documentation"
        return add(parser, *names, **settings)

    argparse.ArgumentParser.add_argument = add_argument  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        argparse.ArgumentParser.add_argument = add  # type: ignore[method-assign]


def answer(arguments: Sequence[str]) -> None:
    """Have Hydra print the groups and their choices, or set up a shell's completion, without what trains."""
    sys.argv[1:] = arguments
    with hydra_at_conf():
        pass  # which registers what conf/ needs
    with help_as_text():
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(str)()


def main(arguments: Sequence[str]) -> int:
    """Execute the runs; returns the exit code."""
    if {*ANSWERED} & {*arguments}:
        answer(arguments)
        return 0
    search_rarely()
    # imported after the arguments: --help does not wait for torch
    from experiments.recording.processes import is_first
    from experiments.sweeps.call import (
        RESUME,
        begin,
        end,
        entries,
        job,
        settle,
        stop_when_asked,
        wait_for_held,
        was_killed,
    )
    from experiments.sweeps.grid_sweeper import GridSweeper
    from experiments.tracking.switches import check_switches
    from experiments.training.distributed import leave

    console = Console(stderr=True, markup=False, quiet=not is_first())
    try:
        flags, overrides = sort_arguments(take(arguments))
        multirun = bool({"-m", "--multirun"} & set(flags))
        if not arguments:
            raise ConfigError("say what to run, such as experiment=positions position=rope; --help lists the choices")
        check_switches()
        check_overrides(overrides, multirun)
        Plugins.instance().register(GridSweeper)
        if tunes(overrides, multirun):
            from experiments.sweeps.optuna_sweeper import OptunaSweeper

            Plugins.instance().register(OptunaSweeper)
        given = [parsed.value() for parsed in map(parse, overrides) if parsed.key_or_group == "outputs"]
        folder = begin(Path(str(given[-1]) if given else "outputs"))
    except USER_ERRORS as error:
        print_error(console, error)
        return 1
    sys.argv[1:] = [*flags, *overrides]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise errors instead of printing them
    try:
        if any(
            parsed.key_or_group == "hydra/launcher" and parsed.value() != "basic" for parsed in map(parse, overrides)
        ):
            stop_when_asked(folder)
        with help_as_text():
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()
        wait_for_held(folder, console)
        code, begun = end(folder, console), entries(folder)
        if len(begun) > 1:
            from experiments.report.sweep_answer import print_answer  # imports the ledger

            print_answer(begun, console)
        elif begun and code == 0:
            shown = shlex.quote(str(folder.parent.parent))
            console.print(f"curves: python -m experiments.dashboard {shown}", highlight=False, soft_wrap=True)
        return code
    except KeyboardInterrupt:
        settle(folder)
        if end(folder, console) != 130:
            console.print(RESUME, style="yellow")
        return 130
    except (*USER_ERRORS, HydraException, RuntimeError) as error:  # RuntimeError: of launchers whose job was killed
        settle(folder)
        if not was_killed(folder):
            print_error(console, error)
        return end(folder, console) or 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        leave()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
