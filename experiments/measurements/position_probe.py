"""What a trained language model does with positions: nothing is trained here."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.measurements.position_properties import similarity
from models.positions.rotary import Rotary
from tasks.base import Evaluation, device_of, random_generator
from tasks.language_modeling import LanguageModeling

PASSAGE = 32  # tokens of a moved passage, and of unrelated text before it where it is read first
PASSAGES = 256  # that are moved
AT_ONCE = 64  # sequences read at a time


class PositionProbe(LanguageModeling):
    """Looks at the positions of a model that a run trained; see LanguageModeling for the arguments.

    similarity (R12): cosine of the vectors that an absolute scheme adds, of positions 1 and 2 and of two far ones.
    moved (R13): by how much the loss of a passage differs between two places, in nats per token. Before it stands the
    end of the same unrelated text, short or long. bands (R15): by how much the loss rises where the fast or the slow
    half of the rotated pairs is no longer rotated, or is taken out of all scores.
    """

    @torch.no_grad()
    def evaluate(self, model: Any) -> Evaluation:
        generator = random_generator(self.seed, 0)
        starts = generator.integers(1, len(self.test.tokens) - self.length, (2, PASSAGES))
        unrelated, text = (self.test.tokens[rows[:, None] + np.arange(self.length)] for rows in starts)
        metrics: dict[str, float] = {}
        tables: dict[str, list[dict[str, Any]]] = {}
        vectors = added(model.position, self.length, device_of(model))
        if vectors.any():
            metrics, tables["similarities"] = similarity(vectors, type(model.position).__name__.lower())
        metrics |= moved(model, *(torch.from_numpy(x.astype(np.int64)) for x in (unrelated, text)))
        if isinstance(model.position, Rotary):
            found = bands(model, torch.from_numpy(text.astype(np.int64)))
            metrics |= {name: loss - found["whole"] for name, loss in found.items() if name != "whole"}
            metrics["rotation/fast_minus_slow"] = metrics["unrotated/fast"] - metrics["unrotated/slow"]
            content = {half: metrics[f"removed/{half}"] - metrics[f"unrotated/{half}"] for half in ("fast", "slow")}
            metrics["content/slow_minus_fast"] = content["slow"] - content["fast"]
            tables["bands"] = [{"pairs": name, "loss": loss} for name, loss in found.items()]
        return Evaluation(metrics, tables)


def added(position: Any, length: int, device: torch.device | str = "cpu") -> Tensor:
    """The vectors (length, width) that a scheme adds to the embeddings; zeros for one that adds none."""
    ids = torch.arange(length, device=device)
    return position.embed(torch.zeros(1, length, position.width, device=device), ids)[0]


def moved(model: Any, unrelated: Tensor, text: Tensor) -> dict[str, float]:
    """The losses of the first PASSAGE tokens of texts (N, T), early and late in a sequence of T tokens."""
    passage, late = text[:, :PASSAGE], text.shape[1] - PASSAGE
    losses = {
        name: losses_of(model, torch.cat([unrelated[:, late - place : late], passage], dim=1))[:, place:].mean(dim=1)
        for name, place in (("early", PASSAGE), ("late", late))
    }
    change = losses["late"] - losses["early"]
    return {f"moved/{name}": float(loss.mean()) for name, loss in (losses | {"change": change.abs()}).items()}


def bands(model: Any, text: Tensor) -> dict[str, float]:
    """The mean loss of texts (N, T) with all pairs, and with half of them not rotated or taken out of the scores."""
    scheme, pairs = model.position, model.position.head_width // 2
    fast = torch.arange(pairs) < pairs // 2  # frequencies fall with the pair
    found = {"whole": float(losses_of(model, text).mean())}
    for half, chosen in (("fast", fast), ("slow", ~fast)):
        kept = (~chosen).double()
        with replaced(scheme, frequencies=lambda positions, own=scheme.frequencies, kept=kept: own(positions) * kept):
            found[f"unrotated/{half}"] = float(losses_of(model, text).mean())
        with replaced(scheme, rotate=without(scheme.rotate, kept)):
            found[f"removed/{half}"] = float(losses_of(model, text).mean())
    return found


def without(rotate: Callable[..., Tensor], kept: Tensor) -> Callable[..., Tensor]:
    """A rotation whose result is zero in the pairs that are not kept."""
    return lambda x, positions: rotate(x, positions) * torch.cat([kept, kept]).to(x)


@contextlib.contextmanager
def replaced(scheme: nn.Module, **methods: Any) -> Iterator[None]:
    """A rotary scheme with other methods for a while."""
    vars(scheme).update(methods, cached=None)
    try:
        yield
    finally:
        for name in methods:
            delattr(scheme, name)
        vars(scheme).update(cached=None)


def losses_of(model: Any, tokens: Tensor) -> Tensor:
    """The loss in nats of each token of sequences (N, T) but the first: (N, T - 1)."""
    found = []
    for rows in tokens.to(device_of(model)).split(AT_ONCE):
        logits = model(rows)[0][:, :-1].float()
        found.append(F.cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none"))
    return torch.cat(found).cpu()
