"""What holds for every image network: the published size, gradients everywhere, no bend but the activation's."""

from typing import Any

import pytest
import torch
from support import choices, composed, settings
from torch import nn

from experiments.config.build import build
from experiments.conformance.tiny import noise
from models.initialization import initialize
from models.vision.efficientnet import REDUCTIONS

pytestmark = pytest.mark.slow

NETWORKS = [
    name for name in choices("model") if settings("model", name).get("_target_", "").startswith("models.vision.")
]
IMAGES = [(1, 8, 8), (3, 32, 32)]
PUBLISHED = [  # network, its size, classes, millions of parameters as printed
    ("resnet", "depth=164", 10, "1.7"),  # He et al. 2016, "Identity Mappings", table 4
    ("resnet", "depth=110 bottleneck=false", 10, "1.7"),  # He et al. 2016, "Deep Residual Learning", table 6
    ("wide_resnet", "depth=28 width=10", 10, "36.5"),  # Zagoruyko & Komodakis 2016, tables 4 and 5
    ("wide_resnet", "depth=40 width=4", 10, "8.9"),
    ("wide_resnet", "depth=16 width=8", 10, "11.0"),
    ("densenet", "depth=100 growth=12", 10, "7.0"),  # Huang et al. 2017, table 2
    ("densenet", "depth=40 growth=12", 10, "1.0"),
    ("densenet", "depth=100 growth=12 bottleneck_compression=true", 10, "0.8"),
    ("densenet", "depth=250 growth=24 bottleneck_compression=true", 10, "15.3"),
    ("efficientnet", "width=1.0 depth=1.0 reduction=32", 1000, "5.3"),  # Tan & Le 2019, table 2: B0, B1, B4
    ("efficientnet", "width=1.0 depth=1.1 reduction=32", 1000, "7.8"),
    ("efficientnet", "width=1.4 depth=1.8 reduction=32", 1000, "19"),
]
AT_PAPER = [("resnet", 10, "1.7"), ("wide_resnet", 10, "36.5"), ("densenet", 10, "7.0"), ("efficientnet", 1000, "5.3")]
REFUSED = [
    ("resnet", "depth=10 bottleneck=false", r"model\.depth=10: .*6n \+ 2 layers \(8, 14, 20, …\)"),
    ("resnet", "depth=2 bottleneck=false", r"model\.depth=2: .*6n \+ 2 layers \(8, 14, 20, …\)"),
    ("resnet", "depth=14 bottleneck=true", r"model\.depth=14: .*9n \+ 2 layers \(11, 20, 29, …\)"),
    ("wide_resnet", "depth=12", r"model\.depth=12: .*6n \+ 4 layers \(10, 16, 22, …\)"),
    ("wide_resnet", "depth=4", r"model\.depth=4: .*6n \+ 4 layers \(10, 16, 22, …\)"),
    ("wide_resnet", "width=0", r"model\.width=0 must be 1 or more"),
    (
        "densenet",
        "depth=12 bottleneck_compression=false",
        r"model\.depth=12: a plain DenseNet has 3n \+ 4 layers \(7, 10, 13, …\)",
    ),
    (
        "densenet",
        "depth=13 bottleneck_compression=true",
        r"model\.depth=13: a DenseNet-BC has 6n \+ 4 layers \(10, 16, 22, …\)",
    ),
    ("efficientnet", "depth=0", r"model\.width=0\.25 and model\.depth=0 must be above 0"),
    ("plain", "depth=0", r"model\.depth=0 and model\.width=64 must be 1 or more"),
    ("efficientnet", "reduction=64", r"model\.reduction=64 must be one of 1, 2, 4, 8, 16, 32"),
]
every_network = pytest.mark.parametrize("network", NETWORKS)


def built(network: str, scale: str, channels: int, classes: int, *overrides: str, activation: str = "gelu") -> Any:
    """An image network through the real configuration, with the initial weights of seed 0."""
    config = composed(f"model={network}", f"scale={scale}", f"activation={activation}", *overrides)
    model = build(config.model, channels=channels, classes=classes)
    initialize(model, 0)
    return model


def sized(size: str) -> list[str]:
    return [f"model.{setting}" for setting in size.split()]


def assert_published(model: nn.Module, millions: str) -> None:
    """As many parameters as printed, to the last digit."""
    decimals = len(millions.partition(".")[2])
    assert f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.{decimals}f}" == millions


@pytest.mark.slow
@pytest.mark.parametrize(("network", "size", "classes", "millions"), PUBLISHED)
def test_a_network_has_as_many_parameters_as_published(network: str, size: str, classes: int, millions: str) -> None:
    config = composed(f"model={network}", "scale=paper", "activation=relu", *sized(size))
    with torch.device("meta"):
        assert_published(build(config.model, channels=3, classes=classes), millions)


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["gpu", "paper"])
@pytest.mark.parametrize(("network", "classes", "millions"), AT_PAPER)
def test_the_large_scales_are_the_papers(network: str, classes: int, millions: str, scale: str) -> None:
    with torch.device("meta"):
        config = composed(f"model={network}", f"scale={scale}", "activation=relu")
        assert_published(build(config.model, channels=3, classes=classes), millions)


def test_every_image_network_is_held_against_its_paper() -> None:
    assert {network for network, *_ in AT_PAPER} == {network for network, *_ in PUBLISHED} == {*NETWORKS} - {"plain"}


@every_network
@pytest.mark.parametrize("shape", IMAGES, ids=["8 × 8 grey", "32 × 32 colour"])
@pytest.mark.parametrize("scale", ["smoke", "laptop"])
def test_every_parameter_learns(network: str, shape: tuple[int, ...], scale: str) -> None:
    """Each β of Swish among them."""
    model = built(network, scale, shape[0], 7, activation="swish")
    logits = model(noise(6, *shape).float())
    assert logits.shape == (6, 7)
    nn.functional.cross_entropy(logits, torch.arange(6)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize("size", ["depth=11 bottleneck=true", "depth=20 bottleneck=true stem_stride=1"])
def test_every_parameter_of_bottlenecks_learns(size: str) -> None:
    model = built("resnet", "smoke", 3, 7, *sized(size), activation="swish")
    model(noise(6, 3, 32, 32).float()).square().sum().backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize(("network", "size", "reason"), REFUSED)
def test_a_size_the_family_does_not_have_is_refused(network: str, size: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        built(network, "smoke", 3, 10, *sized(size))


@every_network
def test_two_activations_give_two_results_at_equal_weights(network: str) -> None:
    """The negative control."""
    images = noise(4, 3, 32, 32).float()
    relu, again, silu = (built(network, "smoke", 3, 10, activation=name) for name in ("relu", "relu", "silu"))
    weights, others = dict(relu.named_parameters()), dict(silu.named_parameters())
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert torch.equal(relu(images), again(images))
    assert ((relu(images) - silu(images)).abs().amax(dim=-1) > 1e-3).all()


@torch.no_grad()
@pytest.mark.parametrize(
    ("network", "size"),
    [
        ("resnet", "bottleneck=false"),
        ("resnet", "depth=11 bottleneck=true"),
        ("wide_resnet", "depth=16"),
        ("densenet", "bottleneck_compression=false"),
        ("densenet", "depth=10 bottleneck_compression=true"),
        ("plain", "depth=3"),
    ],
)
def test_nothing_but_the_activation_bends(network: str, size: str) -> None:
    """With the identity for an activation a network in use is affine: f(a + b) + f(0) = f(a) + f(b)."""

    def results(activation: str) -> tuple[torch.Tensor, torch.Tensor]:
        model = built(network, "smoke", 3, 10, *sized(size), activation=activation).double().eval()
        one, other = noise(2, 3, 32, 32), noise(2, 3, 32, 32, seed=1)
        return model(one + other) + model(torch.zeros_like(one)), model(one) + model(other)

    torch.testing.assert_close(*results("linear"), rtol=1e-9, atol=1e-9)
    bent, straight = results("relu")
    assert (bent - straight).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_an_efficientnet_reduces_an_image_as_told(reduction: int) -> None:
    model = built("efficientnet", "smoke", 3, 10, f"model.reduction={reduction}")
    assert model.body(model.stem(noise(1, 3, 64, 64).float())).shape[2:] == (64 // reduction, 64 // reduction)
