"""Exact properties of activation functions, in float64."""

from collections.abc import Callable
from typing import Any

import hydra
import torch
from omegaconf import OmegaConf
from scipy.optimize import minimize_scalar
from torch import Tensor

from experiments.config.choices import file_of, groups
from models.activations import Activation, Swish
from tasks.base import Evaluation

NEAR = 5.0  # the inputs over which Swish is compared with a line and with ReLU reach so far from 0


def activation(choice: str) -> Activation:
    """A configured activation for one channel, in float64, with trainable parameters at their initial values."""
    return hydra.utils.instantiate(OmegaConf.load(file_of("activation", choice)))(1).double()


def swish(x: Tensor, beta: float) -> Tensor:
    """Swish with a fixed β at x (N,), in float64."""
    return Swish(1, initial_beta=beta).double()(x[:, None])[:, 0].detach()


def slope_jump(function: Callable[[Tensor], Tensor]) -> float:
    """By how much the slope of a function differs just right and just left of 0, where ReLU has its kink."""
    step = 1e-4
    left, middle, right = function(torch.tensor([-step, 0.0, step], dtype=torch.float64)).tolist()
    return abs((right - middle) - (middle - left)) / step


def swish_shape() -> Evaluation:
    """S6: the minimum of Swish, the sign changes of its slope, and its limits for small and large β."""
    found = minimize_scalar(lambda x: float(swish(torch.tensor([x], dtype=torch.float64), 1.0)), bounds=(-3, 0))
    x = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    slope = swish(x, 1.0).diff()
    linear, relu = x / 2, x.relu()
    metrics = {
        "minimum": float(found.fun),
        "minimum_at": float(found.x),
        "slope_sign_changes": float((slope.sign().diff() != 0).sum()),
        "slope_jump/swish": slope_jump(lambda x: swish(x, 1.0)),
        "slope_jump/relu": slope_jump(torch.relu),
        "of_x_at_a_million": float(swish(torch.tensor([1e6], dtype=torch.float64), 1.0)) / 1e6,
        "value_at_minus_a_million": float(swish(torch.tensor([-1e6], dtype=torch.float64), 1.0)),
        "smallest_value": float(swish(x, 1.0).min()),
        "largest_value": float(swish(x, 1.0).max()),
        "deviation_from_half_x_at_beta_0": float((swish(x, 0.0) - linear).abs().max()),
        "deviation_from_relu_at_beta_1e6": float((swish(x, 1e6) - relu).abs().max()),
    }
    curves = [
        {"x": float(at), "beta": str(beta), "value": float(value)}
        for beta in (0.1, 0.5, 1.0, 2.0, 10.0)
        for at, value in zip(x[25_000:35_001:100], swish(x, beta)[25_000:35_001:100])
    ]
    return Evaluation(metrics, {"curves": curves})


def functions() -> Evaluation:
    """Values and slopes of all configured activations on [-5, 5], with trainable parameters at their initial values."""
    rows: list[dict[str, Any]] = []
    for choice in groups()["activation"]:
        x = (torch.arange(-50, 51) / 10).double().requires_grad_()
        value = activation(choice)(x[:, None])[:, 0]
        (slope,) = torch.autograd.grad(value.sum(), x)
        for line, points in (("value", value.detach()), ("slope", slope)):
            at = {"level": choice.replace("_", " "), "line": line}
            rows += [at | {"x": point, "value": y} for point, y in zip(x.tolist(), points.tolist())]
    return Evaluation({"functions": float(len(groups()["activation"]))}, {"functions": rows})


def monotonicity() -> Evaluation:
    """S12: how far every configured activation falls in all while x rises from -30 to 30; 0 if it is monotonic."""
    x, metrics = torch.linspace(-30, 30, 60_001, dtype=torch.float64)[:, None], {}
    for choice in groups()["activation"]:
        metrics[f"fall/{choice}"] = float(activation(choice)(x)[:, 0].detach().diff().clamp(max=0).sum().abs())
    falls = [
        {"function": name.removeprefix("fall/").replace("_", " "), "falls by": fall} for name, fall in metrics.items()
    ]
    return Evaluation(metrics, {"falls": falls})


def swish_by_beta() -> Evaluation:
    """S13: the mean distance of Swish from x/2 and from ReLU where |x| ≤ 5, for β from 0.01 to 100."""
    x = torch.linspace(-NEAR, NEAR, 2_001, dtype=torch.float64)
    betas = torch.logspace(-2, 2, 81, dtype=torch.float64)  # 1 among them
    rows: list[dict[str, Any]] = []
    for beta in betas.tolist():
        value = swish(x, beta)
        lines = {"x / 2": x / 2, "ReLU": x.relu()}
        rows += [{"x": beta, "from": name, "value": float((value - y).abs().mean())} for name, y in lines.items()]
    nearer = {line["x"]: line["value"] < relu["value"] for line, relu in zip(rows[::2], rows[1::2])}
    below, above = ([near for beta, near in nearer.items() if (beta < 1) is side] for side in (True, False))
    metrics = {
        "share_below_1_nearer_to_a_line": sum(below) / len(below),
        "share_from_1_nearer_to_relu": 1 - sum(above) / len(above),
        "nearer_to_relu_from": min(beta for beta, near in nearer.items() if not near),
    }
    return Evaluation(metrics, {"distances": rows})
