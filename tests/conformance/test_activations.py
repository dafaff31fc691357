"""What holds for every activation and feed-forward: the formula, its gradient, a visible effect, equal parameters."""

import math
from itertools import combinations, product
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from support import choices, composed, decoder
from support import settings as file
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.conformance.contracts import assert_close
from experiments.conformance.tiny import VOCABULARY, noise, random_tokens, shake
from experiments.training import checkpoint
from experiments.training.loop import parameter_groups
from models.activations import Activation
from models.initialization import initialize


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


FORMULAS = {  # of x and the channel's trained parameter, where there is one
    "linear": lambda x, _: x,
    "step": lambda x, _: float(x > 0),
    "sigmoid": lambda x, _: sigmoid(x),
    "tanh": lambda x, _: math.tanh(x),
    "relu": lambda x, _: x if x > 0 else 0.0,
    "squared_relu": lambda x, _: x**2 if x > 0 else 0.0,
    "leaky_relu": lambda x, _: x if x > 0 else 0.01 * x,
    "prelu": lambda x, slope: x if x > 0 else slope * x,
    "softplus": lambda x, _: max(x, 0) + math.log1p(math.exp(-abs(x))),
    "elu": lambda x, _: x if x > 0 else math.expm1(x),
    "selu": lambda x, _: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * math.expm1(x)),
    "gelu": lambda x, _: x * math.erfc(-x / math.sqrt(2)) / 2,
    "mish": lambda x, _: x * math.tanh(max(x, 0) + math.log1p(math.exp(-abs(x)))),
    "silu": lambda x, _: x * sigmoid(x),
    "swish": lambda x, beta: x * sigmoid(beta * x),
    "expression": lambda x, beta: max(x, sigmoid(beta * x)),
    "max_sigmoid": lambda x, _: max(x, sigmoid(x)),
    "cos_minus_x": lambda x, _: math.cos(x) - x,
    "min_sin": lambda x, _: min(x, math.sin(x)),
    "atan_squared_minus_x": lambda x, _: math.atan(x) ** 2 - x,
    "max_tanh": lambda x, _: max(x, math.tanh(x)),
    "sinc_plus_x": lambda x, _: math.sin(x) / x + x,
    "x_asinh_squared": lambda x, _: x * math.asinh(x) ** 2,
}
CHANNELS = 3
every_activation = pytest.mark.parametrize("activation", choices("activation"))
every_feedforward = pytest.mark.parametrize("feedforward", choices("feedforward"))
every_model = pytest.mark.parametrize("model", ["decoder", "resnet"])


def built(activation: str, channels: int = CHANNELS, **settings: Any) -> Activation:
    return hydra.utils.instantiate(file("activation", activation))(channels, **settings)


def trainable() -> list[str]:
    return [name for name in choices("activation") if list(built(name).parameters())]


@torch.no_grad()
def spread(activation: Activation) -> list[float]:
    """Give each channel another β, and say which."""
    betas = [0.0, 0.7, 2.5]
    for parameter in activation.parameters():
        parameter.copy_(torch.tensor(betas, dtype=parameter.dtype))
    return betas


@every_activation
def test_values_equal_the_formula(activation: str) -> None:
    if activation not in FORMULAS:
        pytest.skip(f"FORMULAS has no formula of {activation}, which the class alone says")
    function = built(activation).double()
    x = torch.linspace(-30, 30, 6 * 41).double().view(41, 2, CHANNELS)
    betas = spread(function)
    expected = [[[FORMULAS[activation](v, b) for v, b in zip(row, betas)] for row in rows] for rows in x.tolist()]
    assert_close(function(x), torch.tensor(expected, dtype=torch.float64), 1e-12)


@every_activation
def test_channels_may_be_the_first_dimension_of_an_image(activation: str) -> None:
    last, first = built(activation).double(), built(activation, channel_dimension=1).double()
    spread(last), spread(first)
    x = noise(2, 4, 5, CHANNELS)
    assert_close(first(x.movedim(-1, 1)), last(x).movedim(-1, 1))


@pytest.mark.slow
@every_activation
def test_gradients_equal_finite_differences(activation: str) -> None:
    function = built(activation).double()
    spread(function)
    x = torch.linspace(-30, 30, 20 * CHANNELS).double().view(20, CHANNELS).requires_grad_()  # without 0, ReLU's corner
    names, values = zip(*function.named_parameters()) if activation in trainable() else ((), ())

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(function, dict(zip(names, parameters)), x)

    assert torch.autograd.gradcheck(call, (x, *values))


@every_activation
def test_gradients_are_finite_far_out_in_float32(activation: str) -> None:
    function = built(activation)
    x = torch.tensor([[-1e4], [1e4], [0.0], [-90.0], [90.0]]).expand(-1, CHANNELS).clone().requires_grad_()
    gradients = torch.autograd.grad(function(x).sum(), [x, *function.parameters()])
    assert all(tensor.isfinite().all() for tensor in (function(x), *gradients))


def model_with(model: str, activation: str, feedforward: str = "mlp") -> nn.Module:
    if model == "decoder":
        return decoder("full", "rope", activation=activation, feedforward=feedforward)
    config = composed("model=resnet", f"activation={activation}", "model.width=4")
    network = hydra.utils.instantiate(config.model, channels=1, classes=VOCABULARY)
    initialize(network, 0)
    shake(network)
    return network.double()


def scores(network: nn.Module) -> tuple[Tensor, Tensor]:
    """Logits (N, VOCABULARY) of a network on random input, and their loss."""
    if hasattr(network, "blocks"):
        logits = network(random_tokens(2, 12))[0].flatten(0, 1)
    else:
        logits = network(noise(4, 1, 8, 8))
    return logits, F.cross_entropy(logits, random_tokens(1, len(logits), seed=1)[0])


@pytest.mark.slow
@pytest.mark.parametrize(("model", "feedforward"), [("decoder", "mlp"), ("decoder", "glu"), ("resnet", "mlp")])
def test_two_activations_give_two_results_at_equal_weights(model: str, feedforward: str) -> None:
    """The negative control. A trained β is off its start here, where Swish is SiLU."""
    networks = {name: model_with(model, name, feedforward) for name in choices("activation")}
    for one, other in combinations(networks.values(), 2):
        weights, others = (dict(network.named_parameters()) for network in (one, other))
        for name in weights.keys() & others.keys():
            assert torch.equal(weights[name], others[name])
        (logits, loss), (other_logits, other_loss) = scores(one), scores(other)
        assert ((logits - other_logits).abs().amax(dim=-1) > 1e-6).all()
        assert abs(loss.item() - other_loss.item()) > 1e-6


def count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.slow
def test_every_row_of_a_feed_forward_comparison_has_the_same_parameters() -> None:
    """Within 1 %, of the whole model and of its feed-forwards alone, at the shipped size."""
    wholes, feedforwards = [], []
    for feedforward, activation in product(choices("feedforward"), choices("activation")):
        config = composed(f"feedforward={feedforward}", f"activation={activation}")
        model = hydra.utils.instantiate(config.model, vocabulary_size=1024)
        wholes.append(count(model))
        feedforwards.append(sum(count(b.feedforward) - count(b.feedforward.activation) for b in model.blocks))
    assert max(wholes) <= 1.01 * min(wholes)
    assert max(feedforwards) <= 1.01 * min(feedforwards)


def test_a_gated_feed_forward_is_its_formula() -> None:
    """(activation(x W) ⊗ x V) W_2, and activation(x W_1) W_2 without a gate."""
    x = noise(2, 3, 16)
    glu, mlp = (decoder(feedforward=name, activation="silu").blocks[0].feedforward for name in ("glu", "mlp"))
    W, V = glu.gated.weight, glu.up.weight
    assert_close(glu(x), (F.silu(x @ W.T) * (x @ V.T)) @ glu.down.weight.T)
    assert_close(mlp(x), F.silu(x @ mlp.up.weight.T) @ mlp.down.weight.T)


@pytest.mark.slow
@every_model
@pytest.mark.parametrize("activation", trainable())
def test_beta_trains_and_is_per_channel(activation: str, model: str) -> None:
    network = model_with(model, activation)
    scores(network)[1].backward()
    activations = [module for module in network.modules() if isinstance(module, Activation)]
    assert len(activations) == (2 if model == "decoder" else 2 * 3 + 1)
    for module in activations:
        (beta,) = module.parameters()
        assert beta.shape == (module.channels,)
        assert beta.grad.any()
    config = composed(f"activation={activation}")
    optimizer = hydra.utils.instantiate(config.optimizer)(parameter_groups(network, config.training.groups))
    before = [next(module.parameters()).clone() for module in activations]
    optimizer.step()
    for module, start in zip(activations, before):
        assert (next(module.parameters()) != start).any()


@every_model
@pytest.mark.parametrize("activation", trainable())
def test_beta_is_in_the_optimizer_once_and_does_not_decay(activation: str, model: str) -> None:
    network = model_with(model, activation)
    groups = parameter_groups(network, composed().training.groups)
    for module in network.modules():
        if isinstance(module, Activation):
            (beta,) = module.parameters()
            homes = [group for group in groups for parameter in group["params"] if parameter is beta]
            assert [group.get("weight_decay") for group in homes] == [0.0]


@every_model
@pytest.mark.parametrize("activation", trainable())
def test_beta_is_saved(activation: str, model: str, tmp_path: Path) -> None:
    network, other = model_with(model, activation), model_with(model, activation)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Activation):
                next(module.parameters()).add_(noise(module.channels))
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (network, other)]
    tensors = checkpoint.collect(network, optimizers[0], None)
    checkpoint.save(tmp_path / "checkpoint", tensors, checkpoint.Progress())
    assert not torch.equal(scores(other)[0], scores(network)[0])
    checkpoint.load(tmp_path / "checkpoint", other, optimizers[1], None)
    assert torch.equal(scores(other)[0], scores(network)[0])
