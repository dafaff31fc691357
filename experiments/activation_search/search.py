"""The search for activation functions: candidates by Optuna, scored by training a child network with each.

The study lies in the run's folder, so that a search that was killed goes on, and a function is never trained twice.
After the search the best functions are trained again, in larger networks and with fresh seeds, against the functions
that people have made by hand.
"""

import json
import random
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.activation_search.space import candidate, everything, options, takes_x_itself
from experiments.records.record import Record
from experiments.tracking.wandb_run import Tracker
from experiments.training.loop import Result
from models.expressions import ExpressionError, parse

HAND_MADE = {"relu": "max(x, 0)", "swish": "x * sigmoid(beta * x)"}
LOOKED_AT = 10  # of the best functions, when their form is counted
FRESH = 10_000  # seeds of the second training are this far from those of the search
ASKED_PER_TRIAL = 200  # a strategy that finds so few new functions has nothing more to find


Log = Callable[[dict[str, float]], None]
Train = Callable[[dict[str, Any], str, Path], tuple[Result, int]]  # of a configuration, a precision, a folder


@dataclass
class Search:
    """How activation functions are searched for: the settings of the configuration's `search`.

    units: core units of a function, 1 or 2. trials: functions to train the child network with. max_operations: what a
    function may cost. workers: children that train at a time. keep: how many of the best are trained again, in each of
    the `larger` sizes (settings of the model) for `larger_steps` steps, `repeats` times with fresh seeds.
    """

    strategy: Literal["random", "exhaustive", "evolutionary", "model_based"]
    units: int
    trials: int
    max_operations: int
    workers: int
    keep: int
    larger: list[dict[str, int]]
    larger_steps: int
    repeats: int

    def __call__(self, *run: Any) -> Result:
        """Search; see `search` for the arguments."""
        return search(*run)


class Score(NamedTuple):
    """What training with a function came to."""

    accuracy: float
    seen: int
    parameters: int


class Study:
    """One search that is under way: `study` holds the candidates, `settings` are the configuration's `search`."""

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
        """The candidates that a child network was trained with, in their order."""
        complete = self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return [trial for trial in complete if "same_as" not in trial.user_attrs]

    def best(self) -> list[FrozenTrial]:
        return sorted(self.trained(), key=lambda trial: (-(trial.value or 0.0), trial.number))

    def sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """The strategy for the candidate of this number. Its chance depends on the number alone, so that a search that
        was killed asks again for the candidate it was at, and goes on as if it had not been killed."""
        seed = 1_000_003 * self.config["seed"] + number
        if self.settings["strategy"] == "model_based":
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.settings["trials"] // 3)
        if self.settings["strategy"] == "evolutionary":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(2, self.settings["trials"] // 5))
        return optuna.samplers.RandomSampler(seed=seed)

    def candidates(self) -> Iterator[tuple[optuna.trial.Trial, str]]:
        """New functions to train with, each with its trial; what is refused or known is told to the study at once."""
        order = list(everything(self.settings["units"])) if self.settings["strategy"] == "exhaustive" else []
        random.Random(self.config["seed"]).shuffle(order)
        asked = 0
        while asked < ASKED_PER_TRIAL * self.settings["trials"]:
            states = [trial.state for trial in self.study.get_trials(deepcopy=False)]
            number = sum(state not in (TrialState.FAIL, TrialState.WAITING) for state in states)
            if order:
                if number >= len(order):
                    return
                if TrialState.WAITING not in states:
                    self.study.enqueue_trial(order[number])
            self.study.sampler = self.sampler(number)
            trial = self.study.ask(self.distributions)
            asked += 1
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
        """Train with new functions until the budget is spent. Trials that run at the same time share the executor."""
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
                said = f"{best[0].value:.1f} % with {best[0].user_attrs['text']}" if best else ""
                bar.update(line, completed=len(self.trained()), best=said)

    def tell(self, trial: optuna.trial.Trial, score: Score, log: Log) -> None:
        trial.set_user_attr("seen", score.seen)
        trial.set_user_attr("parameters", score.parameters)
        self.study.tell(trial, score.accuracy)
        log(self.row(len(self.trained())))

    def row(self, count: int) -> dict[str, float]:
        """What there is to log after so many functions."""
        scores = [trial.value or 0.0 for trial in self.trained()[:count]]
        return {"step": count, "score": scores[-1], "best": max(scores)}

    def child(self, text: str, **changes: Any) -> Score:
        return child(self.train, self.config, self.precision, str(self.record.folder), text, **changes)

    def remembered(self, name: str, text: str, **changes: Any) -> Score:
        """The score of one training outside of the search; once it is known the study keeps it."""
        if name not in self.study.user_attrs:
            self.study.set_user_attr(name, json.dumps(self.child(text, **changes)))
        return Score(*json.loads(self.study.user_attrs[name]))

    def retrain(self, console: Console) -> dict[str, dict[str, float]]:
        """Test accuracy of the best functions and of the hand-made ones, by network and seed."""
        texts = {trial.user_attrs["text"]: trial.user_attrs["text"] for trial in self.best()[: self.settings["keep"]]}
        jobs = [
            (name, text, size, self.config["seed"] * 100 + FRESH + repeat)
            for name, text in {**HAND_MADE, **texts}.items()
            for size in self.settings["larger"]
            for repeat in range(self.settings["repeats"])
        ]
        found: dict[str, dict[str, float]] = {}
        with progress(console) as bar:
            line = bar.add_task("training the best again", total=len(jobs), best="")
            for name, text, size, seed in jobs:
                place = ", ".join(f"{key} {value}" for key, value in size.items()) + f", seed {seed}"
                score = self.remembered(
                    f"{name} | {place}", text, size=size, seed=seed, steps=self.settings["larger_steps"], final=True
                )
                found.setdefault(name, {})[place] = score.accuracy
                bar.advance(line)
        return found


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
    """Train the configuration's network with a function and evaluate it: on images held out from the training ones,
    and on the test images only where it is `final`."""
    own = deepcopy(config)
    activation = {"_target_": "models.expressions.Expression", "_partial_": True, "text": text}
    own |= {"activation": activation, "seed": config["seed"] if seed is None else seed}
    own["model"] |= {"activation": activation, **(size or {})}
    own["task"] |= {"seed": own["seed"], "held_out": 0.0 if final else config["task"]["held_out"]}
    own["training"]["steps"] = steps or config["training"]["steps"]
    with TemporaryDirectory(dir=Path(folder) / "children") as own_folder:
        result, parameters = train(own, precision, Path(own_folder))
    return Score(result.evaluations[max(result.evaluations)]["accuracy"], result.seen, parameters)


def search(
    config: dict[str, Any], precision: str, record: Record, train: Train, tracker: Tracker, console: Console
) -> Result:
    """Search, train the best again, and report what was found. Goes on where it was when it was killed.

    train: trains and evaluates the model of a configuration; returns its result and its number of parameters.
    """
    started = time.monotonic()
    children = record.folder / "children"
    shutil.rmtree(children, ignore_errors=True)
    children.mkdir()
    this = Study(config, precision, record, train)
    rows = [this.row(count + 1) for count in range(len(this.trained()))]
    record.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if rows:
        console.print(f"going on from function {len(rows)} of {this.settings['trials']}")

    def tell(row: dict[str, float]) -> None:
        tracker.log({f"search/{name}": value for name, value in row.items() if name != "step"}, int(row["step"]))

    def log(row: dict[str, float]) -> None:
        with open(record.metrics_file, "a") as file:
            file.write(json.dumps(row) + "\n")
        tell(row)

    for row in rows:  # what W&B lacks of them
        tell(row)
    if this.settings["workers"] > 1:
        with ProcessPoolExecutor(this.settings["workers"], mp_context=get_context("spawn")) as executor:
            this.run(log, executor, console)
    else:
        this.run(log, None, console)
    references = {name: this.remembered(name, text).accuracy for name, text in HAND_MADE.items()}
    again = this.retrain(console)
    shutil.rmtree(children, ignore_errors=True)
    metrics, tables = findings(this, references, again)
    seen = sum(trial.user_attrs["seen"] for trial in this.trained())
    return Result({this.settings["trials"]: metrics}, tables, time.monotonic() - started, seen)


def findings(
    this: Study, references: dict[str, float], again: dict[str, dict[str, float]]
) -> tuple[dict[str, float], dict[str, list[dict[str, Any]]]]:
    """The metrics and the tables of a search. `found` is the function that scored best in it, chosen before any test
    image was seen."""
    best = this.best()
    asked = this.study.get_trials(deepcopy=False)
    means = {name: statistics.fmean(scores.values()) for name, scores in again.items()}
    found = means[best[0].user_attrs["text"]]
    top = best[:LOOKED_AT]
    metrics = {
        "best_score": best[0].value or 0.0,
        "trained": float(len(best)),
        "asked": float(len(asked)),
        "refused": float(sum("refused" in trial.user_attrs for trial in asked)),
        "known": float(sum("same_as" in trial.user_attrs for trial in asked)),
        "share_with_bare_x": statistics.fmean(takes_x_itself(trial.params) for trial in top),
        "share_with_bare_x_of_all": statistics.fmean(takes_x_itself(trial.params) for trial in best),
        "retrained/found": found,
        **{f"score/{name}": score for name, score in references.items()},
        **{f"rank/{name}": 1.0 + sum((t.value or 0.0) > score for t in best) for name, score in references.items()},
        **{f"retrained/{name}": means[name] for name in HAND_MADE},
        **{f"found_minus_{name}": found - means[name] for name in HAND_MADE},
    }
    functions = [
        {
            "rank": place + 1,
            "function": trial.user_attrs["text"],
            "score": trial.value,
            "takes x itself": "yes" if takes_x_itself(trial.params) else "no",
            "retrained": means.get(trial.user_attrs["text"]),
        }
        for place, trial in enumerate(top)
    ]
    functions += [
        {
            "rank": metrics[f"rank/{name}"],
            "function": text,
            "score": references[name],
            "takes x itself": "by hand",
            "retrained": means[name],
        }
        for name, text in HAND_MADE.items()
    ]
    return metrics, {"found": functions, "curves": curves([trial.user_attrs["text"] for trial in top[:5]])}


def curves(texts: list[str]) -> list[dict[str, Any]]:
    """The values of functions on [-5, 5] at β = 1."""
    x = torch.linspace(-5, 5, 101)
    return [
        {"function": text, "x": at, "value": value}
        for text in texts
        for at, value in zip(x.tolist(), parse(text)(x, torch.ones(())).tolist())
    ]


def progress(console: Console) -> Progress:
    """What is done, the time left, and what is best so far."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[best]}"), console=console, transient=True)
