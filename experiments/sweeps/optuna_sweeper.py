"""`-m hydra/sweeper=optuna`: Optuna chooses the values of a sweep, by what one metric of the runs before came to.

Overrides say what is searched: `key=a,b` and choice(a,b) one of these, range(a,b) whole numbers below b, interval(a,b)
any number, int(interval(a,b)) any whole number, and tag(log,…) of the last three by orders of magnitude. All others are
the same for every run. The sweep that an experiment brings along is left out: what is tuned is one variant of it.

A trial is a run like any other, with its record. As many are asked for at a time as the launcher runs at a time: one,
joblib's n_jobs, Slurm's array_parallelism; the fewer these are, the more is known when the next are chosen.
"""

import math
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pydantic
from filelock import FileLock, Timeout
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.console import Console

from experiments.config.checks import check_value
from experiments.config.choices import nearest
from experiments.config.composition import compose_unchecked
from experiments.config.errors import USER_ERRORS, ConfigError, print_error
from experiments.config.overrides import parse, values_of
from experiments.records.record import digest_of, to_json
from experiments.sweeps.call import CALL, STOPPED
from experiments.sweeps.grid_sweeper import caching
from experiments.tracking.wandb_run import BETTER, better
from experiments.training.run_spec import resolve

Space = dict[str, BaseDistribution]
PLUGIN = "hydra_plugins.optuna_sweeper"  # this module's name for Hydra, which loads plugins from that package alone
sys.modules[PLUGIN] = sys.modules[__name__]


class OptunaSweeper(Sweeper):
    """A sweep whose values Optuna chooses; the settings are those of conf/hydra/sweeper/optuna.yaml.

    There is a study, a file in <outputs>/hydra, for every search space, metric, and settings, data and code of the
    runs. A call goes on with it until n_trials have finished. Trials that were cut off are run again, as they were;
    failed ones are not, and do not count.
    """

    __module__ = PLUGIN

    def __init__(self, n_trials: int, metric: str | None, seed: int, params: dict[str, str] | None = None):
        """params: the sweep that an experiment brings along, for the sweeper that runs all of it."""
        self.n_trials, self.metric, self.seed = n_trials, metric, seed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Part of Hydra's interface."""
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=caching(hydra_context), task_function=task_function, config=config
        )
        settings = config.hydra.launcher
        jobs = settings.get("n_jobs") or settings.get("array_parallelism") or 1
        self.at_a_time = jobs if jobs > 0 else os.cpu_count() or 1

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials that are missing and tell the best. Exits where the search cannot be made, with one line."""
        console = Console(stderr=True)
        try:
            self.tune(arguments, console)
        except USER_ERRORS as error:
            print_error(console, error)
            raise SystemExit(1) from error

    def tune(self, arguments: Sequence[str], console: Console) -> None:
        """The same; raises ConfigError for settings or overrides that make no search."""
        check_value(self.n_trials, pydantic.PositiveInt, "hydra.sweeper.n_trials")
        check_value(self.seed, int, "hydra.sweeper.seed")
        direction = direction_of(self.metric)
        overrides = [parse(argument) for argument in arguments]
        fixed = [argument for argument, override in zip(arguments, overrides) if not override.is_sweep_override()]
        searched = [override for override in overrides if override.is_sweep_override()]
        if not searched:
            raise ConfigError(
                "hydra/sweeper=optuna has nothing to search: give a key several values, or an interval as in "
                "'optimizer.lr=tag(log,interval(1e-4,1e-2))'"
            )
        space = {override.get_key_element(): distribution(override) for override in searched}
        first = [f"{override.get_key_element()}={min(map(str, values_of(override)))}" for override in searched]
        file = study_file([*fixed, *first], space, str(self.metric))
        try:
            with FileLock(file.with_suffix(".lock"), timeout=0):
                optuna.logging.set_verbosity(optuna.logging.ERROR)
                storage = f"sqlite:///{file.resolve()}"
                study = optuna.create_study(
                    storage=storage, study_name="study", direction=direction, load_if_exists=True
                )
                self.go_on(study, fixed, space)
        except Timeout as error:
            raise ConfigError(f"{file} is being searched by another process") from error
        finished = len(study.get_trials(states=[TrialState.COMPLETE]))
        console.print(f"{file}: {finished} of {self.n_trials} trials", highlight=False, soft_wrap=True)
        if finished:
            best = shlex.join(["python", "-m", "experiments.run", *fixed, *assignments(study.best_trial)])
            told = f"best {self.metric}: {study.best_value:.6g}, by {best}"
            console.print(told, markup=False, highlight=False, soft_wrap=True)

    def go_on(self, study: optuna.Study, fixed: list[str], space: Space) -> None:
        """Run trials until enough are finished, or until the user stops. The sampler's chance depends on the trial's
        number alone, so that a study goes on after a kill as if there had been none."""
        stopped = Path(os.environ[CALL]) / STOPPED
        again: list[FrozenTrial | Trial] = []
        for trial in study.get_trials(states=[TrialState.RUNNING]):
            if trial.params.keys() == space.keys():
                again.append(trial)
            else:  # cut off before all its values were chosen
                study.tell(trial.number, state=TrialState.FAIL)
        missing = self.n_trials - len(study.get_trials(states=[TrialState.COMPLETE]))
        begun = 0
        while begun < missing and not stopped.exists():
            trials = []
            for _ in range(min(self.at_a_time, missing - begun)):
                study.sampler = optuna.samplers.TPESampler(seed=1_000_003 * self.seed + len(study.get_trials()))
                trials.append(again.pop(0) if again else study.ask(space))
            jobs = list(dict.fromkeys(tuple(assignments(trial)) for trial in trials))  # two may have the same values
            returned = self.launcher.launch([[*fixed, *job] for job in jobs], initial_job_idx=begun)
            metrics = {job: each.return_value for job, each in zip(jobs, returned)}
            for one in trials:
                value = self.value_of(metrics[tuple(assignments(one))])
                if value is not None:
                    study.tell(one.number, value)
                elif not stopped.exists():
                    study.tell(one.number, state=TrialState.FAIL)
            begun += len(trials)

    def value_of(self, metrics: dict[str, float] | None) -> float | None:
        """What is told of a run with these metrics; None of one that failed, was stopped, or ended at no number."""
        if metrics is None:
            return None
        if self.metric not in metrics:
            known = nearest(str(self.metric), [name for name in metrics if better(name)])
            raise ConfigError(f"hydra.sweeper.metric={self.metric}: the runs have no such metric; {known}")
        return metrics[self.metric] if math.isfinite(metrics[self.metric]) else None


def direction_of(metric: str | None) -> StudyDirection:
    """Whether a metric is to be minimized or maximized. Raises ConfigError."""
    if metric is None:
        raise ConfigError(
            "hydra/sweeper=optuna wants a metric of the runs to go by, such as hydra.sweeper.metric=nonoverlapping/loss"
        )
    known = better(str(metric))
    if known is None:
        raise ConfigError(f"hydra.sweeper.metric={metric} is no score: its name has none of {', '.join(BETTER)} in it")
    return {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}[known]


def distribution(override: Override) -> BaseDistribution:
    """The values that an override with several of them stands for. Raises ConfigError."""
    sweep: Any = override.value()
    known = set() if override.is_choice_sweep() else {"log"}
    for tag in sorted(sweep.tags - known):
        raise ConfigError(
            f"'{override.input_line}': a tag {tag} means nothing here; there are tag(log,interval(a,b)) and, for whole "
            "numbers, int(interval(a,b))"
        )
    log = "log" in sweep.tags
    try:
        if override.is_interval_sweep():
            whole = isinstance(sweep.start, int)
            return (IntDistribution if whole else FloatDistribution)(sweep.start, sweep.end, log=log)
        values: list[Any] = list(override.sweep_iterator())
        if override.is_range_sweep() and all(isinstance(value, int) for value in values):
            return IntDistribution(min(values), max(values), step=abs(sweep.step), log=log)
    except ValueError as error:
        raise ConfigError(f"'{override.input_line}': {error}") from error
    return CategoricalDistribution(sorted(set(override.sweep_string_iterator())))


def study_file(first: list[str], space: Space, metric: str) -> Path:
    """Where the study of a search lies that has a run with the overrides `first`. Raises ConfigError and DataError if
    that cannot be planned."""
    planned = resolve(compose_unchecked(first), first)
    kept = {key: distribution_to_json(each) for key, each in space.items()}
    digest = digest_of(to_json([planned.record.id, kept, metric]))[:12]
    folder = Path(planned.config["outputs"]) / "hydra"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{planned.config['name']}-{digest}.db"


def assignments(trial: FrozenTrial | Trial) -> list[str]:
    """The values of a trial as overrides."""
    return [f"{key}={value}" for key, value in trial.params.items()]
