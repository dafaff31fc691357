"""The study of a search: candidates that Optuna proposes, and the child networks that score them.

It is a file in the run folder, so a killed search resumes and no function is trained twice.
"""

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.activation_search.space import Choice, all_choices, candidate, options
from experiments.recording.record import Record
from experiments.training.loop import Result
from models.expressions import ExpressionError

BASELINES = {"relu": "max(x, 0)", "swish": "x * sigmoid(beta * x)"}
RETRAINING_SEEDS = 10_000  # offset of the seeds for retraining
POPULATIONS, TOURNAMENTS = 5, 4  # a population is a fifth of the trials, a tournament a quarter of a population
MAX_PROPOSALS = 200  # per trial, on average; then the search stops, because it hardly finds new functions

Log = Callable[[dict[str, float]], None]
Train = Callable[[dict[str, Any], str, Path], tuple[Result, int]]  # arguments: configuration, precision, folder


class Score(NamedTuple):
    """The result of training with one function: accuracy in percent, examples seen, parameters of the network."""

    accuracy: float
    seen: int
    parameters: int


class Study:
    """The state of a search. `study` stores the candidates; `settings` is the configuration's `search`."""

    def __init__(self, config: dict[str, Any], precision: str, record: Record, train: Train):
        self.config, self.precision, self.record, self.train = config, precision, record, train
        self.settings = config["search"]
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(
            storage=f"sqlite:///{record.folder.resolve()}/search.db",
            study_name="search",
            direction="maximize",
            load_if_exists=True,
        )
        self.distributions: dict[str, Any] = {
            name: optuna.distributions.CategoricalDistribution(values)
            for name, values in options(self.settings["units"]).items()
        }
        for trial in self.study.get_trials(states=[TrialState.RUNNING]):  # of a search that was killed
            self.study.tell(trial.number, state=TrialState.FAIL)

    def trained(self) -> list[FrozenTrial]:
        """The candidates that were trained, in the order of their numbers."""
        complete = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return [trial for trial in complete if "same_as" not in trial.user_attrs]

    def best(self) -> list[FrozenTrial]:
        return sorted(self.trained(), key=lambda trial: (-(trial.value or 0.0), trial.number))

    def sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """The sampler for the candidate of this number. Its seed depends only on the number, so a killed search
        proposes the same candidate again and continues as if it had not been killed."""
        seed = 1_000_003 * self.config["seed"] + number
        if self.settings["strategy"] == "model_based":
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.settings["trials"] // 3)
        return optuna.samplers.RandomSampler(seed=seed)

    def mutated(self, number: int) -> Choice | None:
        """The candidate of this number by regularised evolution (Real et al. 2019): the best of a few drawn from the
        population, with one choice replaced. The population is what was trained last, so that even good functions die
        of age. None until there is one; its members are drawn at random.
        """
        size = max(2, self.settings["trials"] // POPULATIONS)
        population = self.trained()[-size:]
        if len(population) < size:
            return None
        generator = random.Random(1_000_003 * self.config["seed"] + number)
        drawn = generator.sample(population, max(2, size // TOURNAMENTS))
        parent = max(drawn, key=lambda trial: trial.value or 0.0).params
        name = generator.choice(sorted(parent))
        other = [option for option in options(self.settings["units"])[name] if option != parent[name]]
        return parent | {name: generator.choice(other)}

    def candidates(self) -> Iterator[tuple[optuna.trial.Trial, str]]:
        """Propose new functions to train, each with its trial. Rejected and known ones are completed in the study."""
        exhaustive, evolutionary = (self.settings["strategy"] == name for name in ("exhaustive", "evolutionary"))
        order = list(all_choices(self.settings["units"])) if exhaustive else []
        random.Random(self.config["seed"]).shuffle(order)
        proposals = 0
        while proposals < MAX_PROPOSALS * self.settings["trials"]:
            states = [trial.state for trial in self.study.get_trials(deepcopy=False)]
            number = sum(state not in (TrialState.FAIL, TrialState.WAITING) for state in states)
            if exhaustive and number >= len(order):
                return
            following = order[number] if exhaustive else self.mutated(number) if evolutionary else None
            if following and TrialState.WAITING not in states:
                self.study.enqueue_trial(following)
            self.study.sampler = self.sampler(number)
            trial = self.study.ask(self.distributions)
            proposals += 1
            try:
                tree, key = candidate(trial.params, self.settings["max_operations"])
            except ExpressionError as error:
                trial.set_user_attr("refused", str(error))
                self.study.tell(trial, state=TrialState.PRUNED)
                continue
            known = next((t for t in self.trained() if t.user_attrs["key"] == key), None)
            if known is not None:
                trial.set_user_attr("same_as", known.number)
                self.study.tell(trial, known.value)
                continue
            trial.set_user_attr("key", key)
            trial.set_user_attr("text", str(tree))
            yield trial, str(tree)

    def run(self, log: Log, executor: Executor | None, console: Console) -> None:
        """Train new functions until there are enough trials: in parallel on the executor, or here if it is None."""
        new = self.candidates()
        running: dict[Future[Score], optuna.trial.Trial] = {}
        with progress(console) as bar:
            line = bar.add_task("searching", total=self.settings["trials"], completed=len(self.trained()), best="")
            while (done := len(self.trained())) < self.settings["trials"]:
                pair = next(new, None) if done + len(running) < self.settings["trials"] else None
                if pair is not None:
                    trial, text = pair
                    if executor is None:
                        self.tell(trial, self.child(text), log)
                    else:
                        folder = str(self.record.folder)
                        running[executor.submit(child, self.train, self.config, self.precision, folder, text)] = trial
                if running and (pair is None or len(running) >= self.settings["workers"]):
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        self.tell(running.pop(future), future.result(), log)
                elif pair is None:
                    return
                best = self.best()
                leader = f"{best[0].value:.1f} % with {best[0].user_attrs['text']}" if best else ""
                bar.update(line, completed=len(self.trained()), best=leader)

    def tell(self, trial: optuna.trial.Trial, score: Score, log: Log) -> None:
        trial.set_user_attr("seen", score.seen)
        trial.set_user_attr("parameters", score.parameters)
        self.study.tell(trial, score.accuracy)
        log(self.row(len(self.trained())))

    def row(self, count: int) -> dict[str, float]:
        """The row to log after `count` trained functions."""
        scores = [trial.value or 0.0 for trial in self.trained()[:count]]
        return {"step": count, "score": scores[-1], "best": max(scores)}

    def child(self, text: str, **changes: Any) -> Score:
        return child(self.train, self.config, self.precision, str(self.record.folder), text, **changes)

    def cached_child(self, name: str, text: str, **changes: Any) -> Score:
        """The score of a training that is not a trial; the study caches it under `name`."""
        if name not in self.study.user_attrs:
            self.study.set_user_attr(name, json.dumps(self.child(text, **changes)))
        return Score(*json.loads(self.study.user_attrs[name]))

    def retrain(self, console: Console) -> dict[str, dict[str, float]]:
        """Retrain the best functions and the baselines; returns test accuracy by function, then by network and seed."""
        texts = {trial.user_attrs["text"]: trial.user_attrs["text"] for trial in self.best()[: self.settings["keep"]]}
        jobs = [
            (name, text, size, self.config["seed"] * 100 + RETRAINING_SEEDS + repeat)
            for name, text in {**BASELINES, **texts}.items()
            for size in self.settings["larger"]
            for repeat in range(self.settings["repeats"])
        ]
        accuracies: dict[str, dict[str, float]] = {}
        with progress(console) as bar:
            line = bar.add_task("retraining the best", total=len(jobs), best="")
            for name, text, size, seed in jobs:
                setting = ", ".join(f"{key} {value}" for key, value in size.items()) + f", seed {seed}"
                score = self.cached_child(
                    f"{name} | {setting}", text, size=size, seed=seed, steps=self.settings["larger_steps"], final=True
                )
                accuracies.setdefault(name, {})[setting] = score.accuracy
                bar.advance(line)
        return accuracies


def child(
    train: Train,
    config: dict[str, Any],
    precision: str,
    folder: str,
    text: str,
    size: dict[str, Any] | None = None,
    seed: int | None = None,
    steps: int | None = None,
    final: bool = False,
) -> Score:
    """Train the configuration's network with a function and evaluate it: on the validation images or, if `final`, on
    those that the configuration names."""
    own = deepcopy(config)
    activation = {"_target_": "models.expressions.Expression", "_partial_": True, "text": text}
    own |= {"activation": activation, "seed": config["seed"] if seed is None else seed}
    own["model"] |= {"activation": activation, **(size or {})}
    own["task"] |= {"seed": own["seed"], "split": config["task"]["split"] if final else "validation"}
    own["training"]["steps"] = steps or config["training"]["steps"]
    with TemporaryDirectory(dir=Path(folder) / "children") as own_folder:
        result, parameters = train(own, precision, Path(own_folder))
    return Score(result.evaluations[max(result.evaluations)]["accuracy"], result.seen, parameters)


def progress(console: Console) -> Progress:
    """A progress bar with the remaining time and the best function so far."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[best]}"), console=console, transient=True)
