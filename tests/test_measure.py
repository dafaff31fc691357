"""What is measured: peak memory in the bytes of tensors that live at a time, and the sizes of memories."""

import pytest
import torch

from experiments.benchmarks import memory, roofline
from experiments.measurements.properties import memory_size
from experiments.measurements.tensor_memory import peak_bytes

MIB = 2**20


def test_what_is_freed_does_not_count_twice() -> None:
    def call() -> None:
        for _ in range(5):
            made = torch.zeros(MIB, dtype=torch.uint8)
            del made

    assert peak_bytes(call) == MIB


def test_views_and_what_was_there_before_cost_nothing() -> None:
    given = torch.zeros(MIB, dtype=torch.uint8)
    assert peak_bytes(lambda: given.view(2, -1)[1].add_(1)) == 0
    assert peak_bytes(lambda: given.view(2, -1).t().contiguous()) == MIB


def test_what_is_kept_for_the_way_back_counts() -> None:
    weight = torch.ones(MIB // 4, requires_grad=True)

    def call() -> None:
        (weight.exp() * 2).sin().sum().backward()
        weight.grad = None

    with torch.no_grad():
        forward = peak_bytes(lambda: (weight.exp() * 2).sin().sum())
    assert peak_bytes(call) >= forward + MIB


@pytest.mark.slow
def test_before_a_border_the_open_segment_is_counted_too() -> None:
    """At the paper's sizes: keys and values of 2,047 tokens, width 128 in 8 heads and 12 layers."""
    found, opened = memory_size().metrics, 2047 * 2 * 128 * 8 * 12
    for name in ("transformer_xl", "memorizing", "recurrent_memory_in_layers"):
        infini, other = found["floats/infini"], found[f"floats/{name}"]
        assert found[f"share/{name}"] == pytest.approx(infini / other)
        assert found[f"share_off_border/{name}"] == pytest.approx((infini + opened) / (other + opened), rel=1e-3)


def test_the_bound_of_a_step_is_made_of_its_products_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "STEPS", {"small": (32, 16, 64, ("attention=infini_delta",))})
    monkeypatch.setattr(roofline, "TOKENS", 512)
    monkeypatch.setattr("experiments.benchmarks.peers.TOKENS", 512)
    (cells,) = zip(*(column.cells for column in roofline.roofline_table("fp32").columns))
    operations, moved, products, bytes_alone, measured = (float(str(cell).replace(",", "")) for cell in cells[1:6])
    assert operations > 0 and moved > 0
    assert float(str(cells[6]).rstrip("%")) == pytest.approx(100 * (products + bytes_alone) / measured, abs=1)


def test_the_chart_of_memory_has_a_point_for_each_row() -> None:
    rows = [{"tokens": "1,024", "training": name, "peak MiB": "1,234"} for name in ("ours", "peer")]
    spec = memory.memory_chart(rows).to_dict()
    assert spec["data"]["values"] == [{"tokens": 1024, "MiB": 1234, "training": name} for name in ("ours", "peer")]
