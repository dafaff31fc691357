"""One passkey prompt put to a finished run's model."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic.dataclasses
import torch

from experiments.config.schema import register
from experiments.records.memory import process_peak, reset_peak
from experiments.records.record import Record
from experiments.training import checkpoint
from experiments.training.execute import assemble
from experiments.training.run_spec import spec_of
from tasks.base import device_of
from tasks.passkey import DIGITS, Passkey


@pydantic.dataclasses.dataclass(config=pydantic.ConfigDict(extra="forbid"))
class Question:
    """The prompt to ask: its length in tokens, where the key stands, and the key."""

    length: int = 1_000_000
    depth: Literal["start", "middle", "end"] = "start"
    key: int = 90541


@dataclass
class Answer:
    """What was named, in how many seconds, and the most bytes that the process came to hold beside model and prompt."""

    named: str
    seconds: float
    peak: int


def question_of(arguments: Sequence[str]) -> Question:
    """The question in `name=value` arguments. Raises ValueError."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    try:
        question = Question(**given)  # type: ignore[arg-type]
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, problem['loc']))}={problem['input']}: {problem['msg']}") from error
    if not 10 ** (DIGITS - 1) <= question.key < 10**DIGITS:
        raise ValueError(f"key={question.key}: keys have {DIGITS} digits and do not begin with 0")
    return question


def load(folder: Path) -> tuple[Passkey, Any, str]:
    """The task, the trained model and the precision of a finished run. Raises ValueError or RecordError."""
    record = Record(folder)
    if not record.finished:
        raise ValueError(f"{folder} is not the folder of a finished run")
    register()
    planned = spec_of(record.config, ())
    task, model = assemble(planned)
    if not isinstance(task, Passkey):
        raise ValueError(f"{folder} is a run of {type(task).__name__} and not of Passkey")
    checkpoint.load_weights(record.checkpoint_file, model)
    return task, model.eval(), record.environment["precision"]


def ask(task: Passkey, model: Any, precision: str, question: Question) -> Answer:
    """Read the prompt and answer it. Raises ValueError for a prompt shorter than its own parts."""
    prompt = task.at_depth(question.length, np.array([question.key]), question.depth)
    tokens = torch.from_numpy(prompt).to(device_of(model))
    reset_peak()
    before, started = process_peak(), time.perf_counter()
    with torch.no_grad(), torch.autocast(tokens.device.type, torch.bfloat16, enabled=precision == "bf16"):
        named = model.answer(tokens, DIGITS)[0].tolist()
    seconds = time.perf_counter() - started
    peak = process_peak() - before
    words = {token: word for word, token in task.identifiers.items()}
    return Answer(" ".join(words[token] for token in named), seconds, peak)
