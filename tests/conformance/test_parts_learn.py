"""Parts that learn in units of their own learn within a laptop run: they find the values that are planted in them.

A teacher is the same model with planted values in one part. In the student this part alone is trained, with the shipped
parameter groups, optimizer, schedule, clipping and number of steps. The loss is the Kullback-Leibler divergence of the
outputs, in nats. The values are found at the step from which it stays below a tenth of the first step's.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console
from support import choices, composed, decoder
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.config.build import build
from experiments.config.checks import plain
from experiments.conformance.tiny import VOCABULARY
from experiments.recording.record import Record
from experiments.training.execute import train_model
from experiments.training.loop import parameter_groups
from experiments.training.run_spec import RunSpec
from models.activations import Activation
from models.attention import Attention
from models.initialization import initialize
from models.positions import Position
from tasks.base import Batch, Evaluation

TOKENS, IMAGES = (4, 64), (32, 1, 14, 14)  # of a batch


def distances(values: Tensor, random: torch.Generator) -> None:
    """A T5 table (buckets, heads) with which the first head reads the last token, the second the one before it, …"""
    values.zero_()[torch.arange(values.shape[1]) + 1, torch.arange(values.shape[1])] = 10.0


def alternate(values: Tensor, random: torch.Generator) -> None:
    """Gates (heads,): 95 % memory for the first head, 5 % for the second, …"""
    values.copy_(3.0 * (-1.0) ** torch.arange(len(values)))


def normal(deviation: float = 1.0) -> Callable[[Tensor, torch.Generator], None]:
    """Normal values; those of queries and keys have a standard deviation of about 1."""
    return lambda values, random: values.normal_(0.0, deviation, generator=random)  # type: ignore[return-value]


def uniform(most: float) -> Callable[[Tensor, torch.Generator], None]:
    """Values from 0 to `most`."""
    return lambda values, random: values.uniform_(0.0, most, generator=random)  # type: ignore[return-value]


@dataclass(frozen=True)
class Part:
    """Parameters to be found. chosen: overrides. ends: of the parameters' names. plant: sets one parameter's values.

    old: overrides for the settings from before the part had its own, if the values are not found with these.
    """

    chosen: tuple[str, ...]
    ends: tuple[str, ...]
    plant: Callable[[Tensor, torch.Generator], None]
    old: tuple[str, ...] = ()


AS_MATRICES = ("training.groups.relative_positions.lr=0.003", "training.groups.relative_positions.weight_decay=0.1")
AS_BIASES = ("training.groups.relative_positions.lr=0.003",)
POSITIONS, FEEDFORWARD, PASSKEYS, IMAGE_NETWORKS = (
    f"experiment={name}" for name in ("positions", "feedforward_lm", "gates", "activation_images")
)
XL = (POSITIONS, "position=relative_xl")
BETA, SLOPE = uniform(1.5), uniform(0.7)  # as far as trained ones go: Ramachandran et al. 2017, He et al. 2015
PARTS = {
    "T5 table": Part((POSITIONS, "position=relative_bias"), ("position.table",), distances, AS_MATRICES),
    "Shaw table": Part((POSITIONS, "position=relative_shaw"), ("position.table",), normal(), AS_MATRICES),
    "XL u, v": Part(XL, ("position.content_bias", "position.distance_bias"), normal(), AS_BIASES),
    "XL W_R": Part(XL, ("position.relative.weight",), normal(32**-0.5)),  # as large as initial weights
    "learned": Part((POSITIONS, "position=learned", "model.width=128"), ("position.table.weight",), normal(128**-0.5)),
    "gates": Part((PASSKEYS, "segment_length=32"), ("gate",), alternate, ("gates=failing",)),
    "late gates": Part(("experiment=passkey", "segment_length=32"), ("gate",), alternate),
    "β, AdamW": Part((FEEDFORWARD, "activation=swish"), ("beta",), BETA, ("training.groups.activations.lr=0.003",)),
    "slope, AdamW": Part((FEEDFORWARD, "activation=prelu"), ("slope",), SLOPE),
    "β, SGD": Part((IMAGE_NETWORKS, "activation=swish"), ("beta",), BETA),
    "slope, SGD": Part((IMAGE_NETWORKS, "activation=prelu"), ("slope",), SLOPE),
}


class Imitation:
    """A task of the loop: the teacher's outputs for random tokens or images, other ones in every step."""

    model_arguments: dict[str, int] = {}  # noqa: RUF012, never changed

    def __init__(self, teacher: nn.Module, images: bool):
        self.teacher, self.images = teacher, images

    def batch(self, step: int) -> Batch:
        random = torch.Generator().manual_seed(step)
        if self.images:
            return {"images": torch.randn(IMAGES, generator=random)}
        return {"tokens": torch.randint(VOCABULARY, TOKENS, generator=random)}

    def loss(self, model: nn.Module, batch: Batch, state: Any) -> tuple[Tensor, None]:
        (inputs,) = batch.values()
        student, teacher = (self.log_probabilities(each(inputs)) for each in (model, self.teacher))
        return F.kl_div(student, teacher, log_target=True, reduction="batchmean"), None

    def log_probabilities(self, outputs: Any) -> Tensor:
        logits = outputs if self.images else outputs[0]
        return logits.log_softmax(dim=-1).flatten(0, -2)

    def evaluate(self, model: nn.Module) -> Evaluation:
        return Evaluation()


def pair(config: dict[str, Any], part: Part) -> tuple[nn.Module, nn.Module]:
    """The teacher, with planted values, and the student, in which only these can be trained."""
    images = IMAGE_NETWORKS in part.chosen
    arguments = {"channels": 1, "classes": 10} if images else {"vocabulary_size": VOCABULARY}
    student = build(OmegaConf.create(config["model"]), **arguments)
    initialize(student, seed=0)
    if images:  # as after a laptop run on digits: a step of SGD grows with the outputs, which are small at first
        student.classifier.weight.data *= 3
    teacher, random = copy.deepcopy(student).requires_grad_(False), torch.Generator().manual_seed(0)
    for name, parameter in teacher.named_parameters():
        if name.endswith(part.ends):
            part.plant(parameter, random)
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(name.endswith(part.ends))
    return teacher, student


def steps_until_found(part: Part, folder: Path, *overrides: str) -> tuple[int | None, int]:
    """The step at which the planted values are found, None for never, and the number of steps of the laptop's run."""
    small = () if IMAGE_NETWORKS in part.chosen else ("model.width=32", "model.heads=2", "model.layers=1")
    settings = ("scale=laptop", "training.log_every=1", "training.evaluate_at=[]")
    config = plain(composed(*small, *settings, *part.chosen, *overrides))
    teacher, student = pair(config, part)
    record = Record(folder, {"precision": "fp32"})
    task = Imitation(teacher, IMAGE_NETWORKS in part.chosen)
    train_model(RunSpec(config, None, record), task, student, None, Console(quiet=True))
    losses = [row["train/loss"] for row in record.metrics() if "train/loss" in row]
    assert len(losses) == config["training"]["steps"]
    last = max(step for step, loss in enumerate(losses) if loss >= losses[0] / 10)
    return (None if last + 1 == len(losses) else last + 1), len(losses)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_planted_values_are_found_within_a_laptop_run(name: str, tmp_path: Path, record_property: Any) -> None:
    found, steps = steps_until_found(PARTS[name], tmp_path)
    record_property("steps until found", found)
    print(f"{name}: found after {found} of {steps} steps")
    assert found is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, part in PARTS.items() if part.old])
def test_they_are_not_found_with_the_settings_from_before(name: str, tmp_path: Path) -> None:
    found, _ = steps_until_found(PARTS[name], tmp_path, *PARTS[name].old)
    assert found is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "choice"),
    [(group, choice) for group in ("position", "attention", "activation") for choice in choices(group)],
)
def test_every_part_with_parameters_of_its_own_has_a_rate_and_a_planted_task(group: str, choice: str) -> None:
    """Parameters that belong to no linear layer, embedding or norm."""
    model = decoder(**{group: choice})
    kinds = (Position, Attention, Activation)
    own = {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, kinds)
        for name, _ in module.named_parameters(recurse=False)
    }
    assert all(name.endswith(tuple(end for part in PARTS.values() for end in part.ends)) for name in own)
    others = parameter_groups(model, composed().training.groups)[2:]
    rated = {id(parameter) for each in others for parameter in each["params"]}
    assert rated == {id(parameter) for name, parameter in model.named_parameters() if name in own}
    assert all(each["lr"] > 0 for each in others)
