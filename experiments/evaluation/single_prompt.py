"""Evaluate a finished run's model on a single passkey prompt."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pydantic.dataclasses
import torch

from experiments.evaluation.repeat import trained
from experiments.recording.memory import process_peak, reset_peak
from experiments.recording.record import Record
from tasks.base import device_of
from tasks.passkey import DIGITS, Passkey


@pydantic.dataclasses.dataclass(config=pydantic.ConfigDict(extra="forbid"))
class Prompt:
    """A passkey prompt: its length in tokens, the position of the key, and the key."""

    length: Annotated[pydantic.PositiveInt, pydantic.Field(le=10**9)] = 1_000_000
    depth: Literal["start", "middle", "end"] = "start"
    key: int = 90541


@dataclass
class Answer:
    """The model's answer, the time in seconds, and the peak memory in bytes beyond model and prompt."""

    digits: str
    seconds: float
    peak: int


def prompt_of(arguments: Sequence[str]) -> Prompt:
    """The prompt described by `name=value` arguments. Raises ValueError."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    try:
        prompt = Prompt(**given)  # type: ignore[arg-type]
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, problem['loc']))}={problem['input']}: {problem['msg']}") from error
    if not 10 ** (DIGITS - 1) <= prompt.key < 10**DIGITS:
        raise ValueError(f"key={prompt.key}: a key has {DIGITS} digits and does not begin with 0")
    return prompt


def passkey_model(folder: Path) -> tuple[Passkey, Any, str]:
    """The task, the trained model and the precision of a finished run.

    Raises ValueError, among them ConfigError for settings that must not be built, or RecordError.
    """
    record = Record(folder.resolve())
    task, model = trained(record)
    if not isinstance(task, Passkey):
        raise ValueError(f"{folder} is a run of the task {type(task).__name__}, not Passkey")
    return task, model, record.environment["precision"]


def answer(task: Passkey, model: Any, precision: str, prompt: Prompt) -> Answer:
    """Read the prompt and generate the answer. Raises ValueError if the prompt's length is too short for its parts."""
    tokens = torch.from_numpy(task.at_depth(prompt.length, np.array([prompt.key]), prompt.depth)).to(device_of(model))
    reset_peak()
    before, started = process_peak(), time.perf_counter()
    with torch.no_grad(), torch.autocast(tokens.device.type, torch.bfloat16, enabled=precision == "bf16"):
        generated = model.answer(tokens, DIGITS)[0].cpu().numpy()
    seconds = time.perf_counter() - started
    peak = process_peak() - before
    return Answer(task.decode(generated), seconds, peak)
