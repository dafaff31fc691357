"""What is measured in trained models and deep networks: each figure changes with what it measures."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from experiments.conformance.tiny import VOCABULARY, random_tokens
from experiments.measurements.activation_properties import monotonicity, swish_by_beta
from experiments.measurements.attention_by_rows import attention_by_rows
from experiments.measurements.gradient_flow import WORST, GradientFlow, imbalance
from experiments.measurements.position_probe import added, bands, losses_of, moved, replaced
from experiments.measurements.position_properties import position_similarity, similarity, three_apart
from models.activations import ReLU, Sigmoid
from models.positions.absolute import Learned, Sinusoidal
from models.vision.plain import PlainNetwork
from tasks.data.images import Digits
from tests.conformance.support import decoder

LENGTH = 128


def test_what_falls_is_told_from_what_never_does() -> None:
    falls = monotonicity().metrics
    assert falls["fall/relu"] == falls["fall/tanh"] == falls["fall/step"] == 0
    assert falls["fall/linear"] == 0 and falls["fall/cos_minus_x"] == pytest.approx(60)
    assert falls["fall/silu"] == pytest.approx(0.2785, abs=1e-4)


def test_a_line_is_nearer_for_small_beta_and_relu_for_large() -> None:
    found = swish_by_beta()
    by_beta: dict[float, dict[str, float]] = {}
    for row in found.tables["distances"]:
        by_beta.setdefault(row["x"], {})[row["from"]] = row["value"]
    assert by_beta[min(by_beta)]["x / 2"] < 0.1 < 1 < by_beta[min(by_beta)]["ReLU"]
    assert by_beta[max(by_beta)]["ReLU"] < 0.01 < 1 < by_beta[max(by_beta)]["x / 2"]
    assert found.metrics["share_from_1_nearer_to_relu"] == 1 > found.metrics["share_below_1_nearer_to_a_line"]


@pytest.mark.slow
def test_by_rows_is_the_same_attention_with_less_memory() -> None:
    found = attention_by_rows().metrics
    assert found["deviation/by_rows"] < 1e-5 and found["deviation/fused"] < 1e-5
    assert found["growth/operations/by_rows"] == found["growth/operations/whole"] == 4
    assert found["growth/bytes/by_rows"] == pytest.approx(2, abs=0.05)
    assert found["growth/bytes/whole"] == pytest.approx(4, abs=0.05)


@pytest.mark.slow
def test_absolute_schemes_see_places_and_relative_ones_do_not() -> None:
    found = three_apart().metrics
    assert all(found[f"spread/{name}"] < 1e-9 for name in ("none", "rope", "alibi", "relative_bias", "relative_xl"))
    assert found["place_matters/learned"] == found["place_matters/sinusoidal"] == 1


@torch.no_grad()
def test_the_similarity_is_that_of_the_vectors() -> None:
    """Sinusoids fall with the distance, equal vectors are alike at every distance, drawn ones at none."""
    waves, _ = similarity(added(Sinusoidal(64, 2), LENGTH), "sinusoidal")
    assert waves["similarity/near"] > 0.8 and waves["similarity/near_minus_far"] > 0.3
    assert position_similarity().metrics["similarity/near_minus_far"] > 0.3
    learned = Learned(64, 2, LENGTH)
    nn.init.normal_(learned.table.weight, generator=torch.Generator().manual_seed(0))
    drawn, rows = similarity(added(learned, LENGTH), "learned")
    assert abs(drawn["similarity/near_minus_far"]) < 0.5 and len(rows) == LENGTH - 1
    nn.init.ones_(learned.table.weight)
    assert similarity(added(learned, LENGTH), "learned")[0]["similarity/near_minus_far"] == pytest.approx(0, abs=1e-6)
    assert not added(decoder("full", "rope").position.float(), 8).any()


class Placed(nn.Module):
    """Fixed logits for each token of vocabulary, which tilt with the place if `tilt` is not 0."""

    def __init__(self, tilt: float):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(0)))
        self.tilt = tilt

    def forward(self, tokens: Tensor) -> tuple[Tensor, None]:
        places = torch.arange(tokens.shape[1])[:, None] * torch.linspace(0, self.tilt, VOCABULARY)
        return self.weight[tokens] + places, None


def test_a_moved_passage_is_another_only_to_a_model_that_sees_places() -> None:
    unrelated, text = random_tokens(4, LENGTH), random_tokens(4, LENGTH)
    with torch.no_grad():
        assert moved(Placed(0.0), unrelated, text)["moved/change"] == 0
        assert moved(Placed(0.1), unrelated, text)["moved/change"] > 0.1


def test_bands_are_switched_off_for_a_while() -> None:
    """Without any rotation RoPE is no positions at all; afterwards the model is as before."""
    model, plain, text = decoder("full", "rope"), decoder("full", "none"), random_tokens(2, 32)
    with torch.no_grad():
        before = losses_of(model, text)
        with replaced(model.position, frequencies=lambda positions: torch.zeros(model.position.head_width // 2)):
            assert torch.allclose(losses_of(model, text), losses_of(plain, text), atol=1e-6)
        found = bands(model, text)
        assert torch.equal(losses_of(model, text), before)
    assert found["whole"] == pytest.approx(float(before.mean()))
    assert len({round(loss, 9) for loss in found.values()}) == len(found) == 5


def network(depth: int, activation: Any = ReLU, scale: float = 1.0) -> PlainNetwork:
    model = PlainNetwork(1, 10, depth, 32, activation)
    with torch.no_grad():
        for layer in model.layers:
            layer.weight.mul_(scale)
    return model


def test_gradients_that_vanish_and_units_that_are_dead_are_seen() -> None:
    torch.manual_seed(0)
    task = GradientFlow(Digits(), seed=0, batch_size=64, shift=0, flip=False)
    shallow, deep = (task.evaluate(network(depth, Sigmoid)).metrics["imbalance"] for depth in (2, 20))
    assert shallow < 2 < 8 < deep
    alive, dead = network(3), network(3)
    with torch.no_grad():
        dead.layers[1].bias.fill_(-1e3)  # all units of the second layer, and so all behind them
    assert task.dead_units(alive) < 0.3 < 0.6 < task.dead_units(dead)
    found = task.evaluate(dead).metrics
    assert found["failed"] == 1 and found["imbalance"] == WORST


def test_the_imbalance_counts_decades() -> None:
    assert imbalance(1e-3, 1.0) == imbalance(1.0, 1e-3) == pytest.approx(3)
    assert imbalance(0.0, 1.0) == imbalance(float("nan"), 1.0) == imbalance(float("inf"), 1.0) == WORST


@pytest.mark.parametrize("settings", [{"depth": 0, "width": 4}, {"depth": 4, "width": 0}])
def test_a_network_of_nothing_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        PlainNetwork(1, 10, **settings, activation=ReLU)
