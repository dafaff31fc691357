"""Peak memory is counted in the bytes of tensors that live at a time."""

import torch

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
