"""The cost of position schemes: speed and memory of training, evaluation and decoding from a cache."""

import statistics
from collections.abc import Callable
from typing import Any

import hydra
import torch
from omegaconf import OmegaConf
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.config.composition import compose_unchecked
from experiments.measurements.tensor_memory import peak_bytes
from experiments.measurements.timing import interleaved
from experiments.recording import environment
from models.initialization import initialize
from models.positions.rotary import Rotary, rotation_matrix
from tasks.base import Evaluation, Measurement

PEER = "sinusoidal"  # the scheme that all are compared with, as in table 1 of the ALiBi paper
VOCABULARY = 1024
DECODED = 8  # tokens per timing of decoding


class PositionCost(Measurement):
    """Measures the same decoder with every scheme, interleaved in one process.

    tokens: tokens of a batch in training and evaluation. lengths: lengths of its sequences, and of the cached contexts
    in decoding. head_widths: for comparing the element-wise rotation with the product by the rotation matrix (R6).
    Raises ValueError if the schemes lack `sinusoidal` or `rope`.
    """

    def __init__(
        self,
        seed: NonNegativeInt,
        schemes: list[str],
        tokens: PositiveInt,
        lengths: list[PositiveInt],
        head_widths: list[PositiveInt],
        repeats: PositiveInt,
    ):
        self.seed, self.schemes, self.tokens = seed, schemes, tokens
        self.lengths, self.head_widths, self.repeats = lengths, head_widths, repeats
        if not {PEER, "rope"} <= set(schemes):
            raise ValueError(f"task.schemes must include {PEER} and rope, which the others are compared with")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def evaluate(self, model: nn.Module) -> Evaluation:
        precise = environment.resolve_precision("auto") == "fp32"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=not precise):
            metrics, rows = self.costs()
            rotations = self.rotations()
        longest = f"/{max(self.lengths)}/"
        for key, value in list(metrics.items()):  # names without a length, for claims at any scale
            if longest in key:
                metrics[key.replace(longest, "/")] = value
        for name in self.schemes:
            metrics[f"decoding_against_rope/{name}"] = (
                metrics[f"speed/decoding/{name}"] / metrics["speed/decoding/rope"]
            )
        for key in ("matrix_time", "matrix_memory"):
            metrics |= {f"{key}/{row['head_width']}": row[key] for row in rotations}
            metrics[key] = min(row[key] for row in rotations)
        return Evaluation(metrics, {"costs": rows, "rotations": rotations})

    def costs(self) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Speed and peak memory of every scheme, relative to PEER, as metrics and as table rows."""
        metrics: dict[str, float] = {}
        rows: list[dict[str, Any]] = []
        models = {name: self.decoder(name) for name in self.schemes}
        for length in self.lengths:
            for make in (self.training, self.evaluation, self.decoding):
                work = make.__name__
                calls = {name: make(decoder, length) for name, decoder in models.items()}
                times = interleaved(calls, self.repeats)
                count = DECODED if work == "decoding" else self.tokens
                memory = {name: peak_bytes(call) for name, call in calls.items()}
                for name in self.schemes:
                    faster = statistics.median(peer / own for own, peer in zip(times[name], times[PEER]))
                    speed, share = count / statistics.median(times[name]), memory[name] / memory[PEER]
                    row = {"work": work, "length": length, "scheme": name, "tokens_per_second": speed}
                    rows.append(row | {"speed": faster, "peak_bytes": memory[name], "memory": share})
                    metrics |= {f"speed/{work}/{length}/{name}": faster, f"memory/{work}/{length}/{name}": share}
        return metrics, rows

    def decoder(self, position: str) -> Any:
        """The configured decoder with this scheme, and with a position table that is long enough for every length."""
        longest = max(self.lengths) + DECODED * (self.repeats + 2)
        config = compose_unchecked([f"position={position}", f"trained_length={longest}", "attention=full"])
        OmegaConf.resolve(config)
        model = hydra.utils.instantiate(config.model, vocabulary_size=VOCABULARY)
        initialize(model, self.seed)
        return model.to(self.device)

    def text(self, rows: int, length: int) -> Tensor:
        """Random tokens (rows, length)."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randint(0, VOCABULARY, (rows, length), generator=generator).to(self.device)

    def training(self, model: nn.Module, length: int) -> Callable[[], object]:
        """Loss and gradients of one batch."""
        text = self.text(max(1, self.tokens // length), length + 1)

        def call() -> None:
            with torch.enable_grad():
                logits, _ = model(text[:, :-1])
                F.cross_entropy(logits.flatten(0, 1).float(), text[:, 1:].flatten()).backward()
            model.zero_grad()

        return call

    def evaluation(self, model: nn.Module, length: int) -> Callable[[], object]:
        """Logits of one batch."""
        text = self.text(max(1, self.tokens // length), length)
        return torch.no_grad()(lambda: model(text))

    def decoding(self, model: nn.Module, length: int) -> Callable[[], object]:
        """DECODED tokens, decoded one by one from a cache of at least `length` tokens."""
        token = self.text(1, 1)
        with torch.no_grad():
            _, cache = model(self.text(1, length))

        @torch.no_grad()
        def call() -> None:
            state = cache
            for _ in range(DECODED):
                _, state = model(token, state)

        return call

    def rotations(self) -> list[dict[str, Any]]:
        """Time and memory of rotating by the matrices of all positions, relative to the element-wise rotation."""
        rows = []
        for head_width in self.head_widths:
            for length in self.lengths:
                scheme, positions = Rotary(head_width, 1), torch.arange(length, device=self.device)
                x = torch.randn(4, 4, length, head_width, device=self.device)

                def by_matrix(scheme=scheme, x=x) -> Tensor:
                    frequencies = scheme.frequencies()
                    matrices = torch.stack([rotation_matrix(frequencies, position) for position in range(x.shape[2])])
                    return torch.einsum("tij,bhtj->bhti", matrices.to(x), x)

                def by_element(scheme=scheme, x=x, positions=positions) -> Tensor:
                    return scheme.rotate(x, positions)

                times = interleaved({"matrix": by_matrix, "element": by_element}, self.repeats)
                slower = statistics.median(m / e for m, e in zip(times["matrix"], times["element"]))
                larger = peak_bytes(by_matrix) / peak_bytes(by_element)
                row = {"head_width": head_width, "length": length}
                rows.append(row | {"matrix_time": slower, "matrix_memory": larger})
        return rows
