"""Gradients of bounded length."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lessismore_transforms.pretraining.clipping import ClipGradients


def network(gradient: float) -> nn.Module:
    layer = nn.Linear(2, 2)
    layer.weight.grad = torch.full((2, 2), gradient)
    return layer  # the bias has no gradient, as a frozen one


def engine(iteration: int, accumulation: int = 1) -> SimpleNamespace:
    state = SimpleNamespace(iteration=iteration)
    return SimpleNamespace(state=state, accumulation_steps=accumulation, scaler=None)


@pytest.mark.parametrize(("gradient", "expected"), [(4.0, 0.5), (0.25, 0.25)])  # lengths 8 and 0.5
def test_long_gradients_are_scaled_down_and_short_ones_left(gradient: float, expected: float) -> None:
    layer = network(gradient)
    ClipGradients(layer, 1.0)(engine(1))
    torch.testing.assert_close(layer.weight.grad, torch.full((2, 2), expected), rtol=1e-5, atol=1e-6)
    assert layer.bias.grad is None


def test_only_where_a_step_follows() -> None:
    layer = network(4.0)
    clip = ClipGradients(layer, 1.0)
    clip(engine(1, 2))
    assert layer.weight.grad[0, 0] == 4
    clip(engine(2, 2))
    assert layer.weight.grad[0, 0] == pytest.approx(0.5)


def test_scaled_gradients_are_unscaled_first() -> None:
    layer = network(4.0 * 1024)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)

    def unscale(given: torch.optim.Optimizer) -> None:
        assert given is optimizer
        layer.weight.grad /= 1024

    scaled = engine(1)
    scaled.optimizer, scaled.scaler = optimizer, SimpleNamespace(unscale_=unscale)
    ClipGradients(layer, 4.0)(scaled)
    torch.testing.assert_close(layer.weight.grad, torch.full((2, 2), 2.0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("norm", [0, -1, "big"])
def test_a_norm_that_makes_no_sense(norm: object) -> None:
    with pytest.raises(ValueError, match="expected a clip_norm above 0"):
        ClipGradients(nn.Linear(1, 1), norm)
