"""`-m hydra/sweeper=optuna`: Optuna chooses the values of a sweep, to optimize one metric of its runs.

Overrides define the search space: `key=a,b` or choice(a,b) for categories, range(a,b) for integers below b,
interval(a,b) for floats, int(interval(a,b)) for integers, and tag(log,…) around the last three for a log scale. All
other overrides are the same in every run. The experiment's own sweep is ignored: a study tunes one variant.

A trial is an ordinary run with a record. Trials start in batches of the launcher's parallelism: 1, joblib's n_jobs or
Slurm's array_parallelism. The smaller the batch, the more results the sampler has for its next choice.
"""

import math
import os
import shlex
import sys
from collections.abc import Collection, Sequence
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
from optuna.exceptions import OptunaError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from experiments.config.checks import check_value
from experiments.config.choices import nearest
from experiments.config.composition import compose_unchecked
from experiments.config.errors import ConfigError, first_line
from experiments.config.overrides import parse, values_of
from experiments.recording.metrics import better
from experiments.recording.record import digest_of, to_json
from experiments.sweeps.call import CALL, STOPPED
from experiments.sweeps.grid_sweeper import caching
from experiments.training.execute import metric_names
from experiments.training.run_spec import RunSpec, resolve

Space = dict[str, BaseDistribution]
ATTEMPTS = 20  # at values that were not tried, by the sampler that learns from the others
PLUGIN = "hydra_plugins.optuna_sweeper"  # Hydra loads plugins only from the package hydra_plugins
sys.modules[PLUGIN] = sys.modules[__name__]


class OptunaSweeper(Sweeper):
    """A sweep whose values Optuna chooses. Its settings are in conf/hydra/sweeper/optuna.yaml.

    A study is a file in <outputs>/hydra. It belongs to one search space, one metric, and one identity (settings, data
    and code) of its runs; each command resumes it until n_trials have finished or every value was tried. Interrupted
    trials are repeated with the same values. No values are tried twice, and failed trials do not count.
    """

    __module__ = PLUGIN

    def __init__(self, n_trials: int, metric: str | None, seed: int, params: dict[str, str] | None = None):
        """params: the experiment's own sweep, which is ignored."""
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
        """Run the missing trials and print the command of the best one. Raises ConfigError."""
        self.tune(arguments, Console(stderr=True, markup=False))

    def tune(self, arguments: Sequence[str], console: Console) -> None:
        """As `sweep`, and print to this console."""
        check_value(self.n_trials, pydantic.PositiveInt, "hydra.sweeper.n_trials")
        check_value(self.seed, pydantic.NonNegativeInt, "hydra.sweeper.seed")
        direction = direction_of(self.metric)
        overrides = [parse(argument) for argument in arguments]
        fixed = [argument for argument, override in zip(arguments, overrides) if not override.is_sweep_override()]
        searched = [override for override in overrides if override.is_sweep_override()]
        if not searched:
            raise ConfigError(
                "hydra/sweeper=optuna has nothing to search: give a key several values, or an interval such as "
                "'optimizer.lr=tag(log,interval(1e-4,1e-2))'"
            )
        space = {override.get_key_element(): distribution(override) for override in searched}
        first = [f"{override.get_key_element()}={min(map(str, values_of(override)))}" for override in searched]
        run = resolve(compose_unchecked([*fixed, *first]), [*fixed, *first])
        file = study_file(run, space, str(self.metric))
        try:
            with FileLock(file.with_suffix(".lock"), timeout=0):
                if not file.exists():
                    self.check_metric(metric_names(run))
                study = study_in(file, direction)
                self.resume(study, fixed, space)
        except Timeout as error:
            raise ConfigError(f"another process is running the study {file}: wait until it has finished") from error
        except (OptunaError, SQLAlchemyError) as error:
            raise unreadable(file, error) from error
        finished = len(study.get_trials(states=[TrialState.COMPLETE]))
        rest = "; all values were tried" if finished < self.n_trials and len(study.trials) >= size_of(space) else ""
        console.print(f"{file}: {finished} of {self.n_trials} trials finished{rest}", highlight=False, soft_wrap=True)
        if finished:
            best = shlex.join(["python", "-m", "experiments.run", *fixed, *assignments(study.best_trial)])
            message = f"best {self.metric}: {study.best_value:.6g}, with {best}"
            console.print(message, highlight=False, soft_wrap=True)

    def resume(self, study: optuna.Study, fixed: list[str], space: Space) -> None:
        """Run trials until enough have finished or the user stops. The sampler's seed depends only on the trial's
        number, so a study that was killed continues as if it had not been."""
        stopped = Path(os.environ[CALL]) / STOPPED
        again: list[FrozenTrial | Trial] = []
        for trial in study.get_trials(states=[TrialState.RUNNING]):
            if trial.params.keys() == space.keys():
                again.append(trial)
            else:  # killed before all its values were chosen
                study.tell(trial.number, state=TrialState.FAIL)
        missing = self.n_trials - len(study.get_trials(states=[TrialState.COMPLETE]))
        begun = 0
        while begun < missing and not stopped.exists():
            trials: list[FrozenTrial | Trial] = []
            while len(trials) < min(self.at_a_time, missing - begun):
                found = again.pop(0) if again else self.ask(study, space)
                if found is None:
                    break
                trials.append(found)
            if not trials:
                return  # every value was tried
            jobs = [[*fixed, *assignments(trial)] for trial in trials]
            for one, returned in zip(trials, self.launcher.launch(jobs, initial_job_idx=begun)):
                value = self.value_of(returned.return_value)
                if value is not None:
                    study.tell(one.number, value)
                elif not stopped.exists():
                    study.tell(one.number, state=TrialState.FAIL)
            begun += len(trials)

    def ask(self, study: optuna.Study, space: Space) -> Trial | None:
        """A trial with values that no earlier one has, whether that finished or failed; None if there are no others.

        Values that were tried are drawn again in a copy, so that the study holds only what was run.
        """
        earlier = study.get_trials()
        tried = {tuple(assignments(trial)) for trial in earlier if trial.params.keys() == space.keys()}
        if len(tried) >= size_of(space):
            return None
        copy = optuna.create_study(direction=study.direction)
        copy.add_trials([trial for trial in earlier if trial.state.is_finished()])
        seed = 1_000_003 * self.seed + len(earlier)
        attempt = 0
        while True:
            sampler = optuna.samplers.TPESampler if attempt < ATTEMPTS else optuna.samplers.RandomSampler
            copy.sampler = sampler(seed=seed + 1_009 * attempt)
            drawn = copy.ask(space)
            if tuple(assignments(drawn)) not in tried:
                study.enqueue_trial(drawn.params)
                return study.ask(space)
            copy.tell(drawn, state=TrialState.FAIL)
            attempt += 1

    def value_of(self, metrics: dict[str, float] | None) -> float | None:
        """The metric of a run, None if the run did not finish or the value is not finite. Raises ConfigError if the run
        has no such metric."""
        if metrics is None:
            return None
        self.check_metric(metrics)
        return metrics[str(self.metric)] if math.isfinite(metrics[str(self.metric)]) else None

    def check_metric(self, names: Collection[str]) -> None:
        """Raise ConfigError if the metric is none of the names of a run's metrics, where they are known."""
        if names and self.metric not in names:
            known = nearest(str(self.metric), [name for name in names if better(name)])
            raise ConfigError(f"hydra.sweeper.metric={self.metric}: the runs have no such metric; {known}")


def direction_of(metric: str | None) -> StudyDirection:
    """Whether a metric is to be minimized or maximized. Raises ConfigError."""
    if metric is None:
        raise ConfigError(
            "hydra/sweeper=optuna needs a metric to optimize: for example, set hydra.sweeper.metric=nonoverlapping/loss"
        )
    direction = better(str(metric))
    if direction is None:
        raise ConfigError(
            f"hydra.sweeper.metric={metric} is not a score: choose one of which less or more is better, such as "
            "nonoverlapping/loss or masked/accuracy"
        )
    return {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}[direction]


def distribution(override: Override) -> BaseDistribution:
    """Optuna's distribution for a sweep override. Raises ConfigError."""
    sweep: Any = override.value()
    known = set() if override.is_choice_sweep() else {"log"}
    for tag in sorted(sweep.tags - known):
        raise ConfigError(
            f"'{override.input_line}': the tag {tag} is not supported here; use tag(log,interval(a,b)) or, for "
            "integers, int(interval(a,b))"
        )
    log = "log" in sweep.tags
    try:
        if override.is_interval_sweep():
            integer = isinstance(sweep.start, int)
            return (IntDistribution if integer else FloatDistribution)(sweep.start, sweep.end, log=log)
        values: list[Any] = list(override.sweep_iterator())
        if override.is_range_sweep() and all(isinstance(value, int) for value in values):
            return IntDistribution(min(values), max(values), step=abs(sweep.step), log=log)
    except ValueError as error:
        raise ConfigError(f"'{override.input_line}': {error}") from error
    return CategoricalDistribution(sorted(set(override.sweep_string_iterator())))


def size_of(space: Space) -> float:
    """The number of different values that a space has."""

    def size(values: BaseDistribution) -> float:
        if isinstance(values, CategoricalDistribution):
            return len(values.choices)
        if isinstance(values, IntDistribution):
            return (values.high - values.low) // values.step + 1
        return 1 if values.single() else math.inf

    return math.prod(map(size, space.values()))


def study_file(run: RunSpec, space: Space, metric: str) -> Path:
    """The file of a study, whose name depends on its space, its metric, and the id of its first run."""
    distributions = {key: distribution_to_json(each) for key, each in space.items()}
    digest = digest_of(to_json([run.record.id, distributions, metric]))[:12]
    folder = Path(run.config["outputs"]) / "hydra"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{run.config['name']}-{digest}.db"


def study_in(file: Path, direction: StudyDirection) -> optuna.Study:
    """The study in a file, which is created if there is none. Raises ConfigError for a file that holds no study."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = f"sqlite:///{file.resolve()}"
    try:
        return optuna.create_study(storage=storage, study_name="study", direction=direction, load_if_exists=True)
    except (OptunaError, SQLAlchemyError, RuntimeError, AssertionError) as error:
        raise unreadable(file, error) from error


def unreadable(file: Path, error: Exception) -> ConfigError:
    """The error for a study that is damaged, or that another program has locked."""
    reason = first_line(error.__cause__ or error)
    return ConfigError(
        f"the study {file} cannot be read or written ({reason}): if no other program has it open, remove it to begin "
        "again; finished runs are found again"
    )


def assignments(trial: FrozenTrial | Trial) -> list[str]:
    """The values of a trial as overrides."""
    return [f"{key}={value}" for key, value in trial.params.items()]
