from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import bundle_scripts, in_processes
from torch import nn

from lessismore_transforms.training.processes import process_count, process_rank

scripts = bundle_scripts("ct_vicreg_pretraining")
VICReg, VICRegLoss, Terms, vicreg_terms = scripts.VICReg, scripts.VICRegLoss, scripts.Terms, scripts.vicreg_terms

pytestmark = pytest.mark.usefixtures("torch_seed")


def slow_terms(z: np.ndarray) -> tuple[float, float, float]:
    """Equations 1 to 5 in loops, the variance terms of the two views halved."""
    _, n, d = z.shape
    invariance = sum((z[0, i, j] - z[1, i, j]) ** 2 for i in range(n) for j in range(d)) / (n * d)
    variance = covariance = 0.0
    for v in range(2):
        mean = [sum(z[v, i, j] for i in range(n)) / n for j in range(d)]
        for j in range(d):
            spread = sum((z[v, i, j] - mean[j]) ** 2 for i in range(n)) / (n - 1)
            variance += max(0.0, 1 - (spread + 1e-4) ** 0.5) / d / 2
            for k in range(d):
                if k != j:
                    together = sum((z[v, i, j] - mean[j]) * (z[v, i, k] - mean[k]) for i in range(n)) / (n - 1)
                    covariance += together**2 / d
    return invariance, variance, covariance


@pytest.mark.parametrize(("pictures", "width"), [(7, 3), (3, 7), (4, 4), (2, 5)])
def test_the_terms_are_those_of_the_paper(pictures: int, width: int) -> None:
    z = torch.randn(2, pictures, width, dtype=torch.float64) * 0.8
    expected = slow_terms(z.numpy())
    assert [float(term) for term in vicreg_terms(z)] == pytest.approx(expected, abs=1e-12)
    loss = VICRegLoss(25, 25, 1)
    total = 25 * expected[0] + 25 * expected[1] + expected[2]
    assert loss({"projections": z}).item() == pytest.approx(total, abs=1e-10)
    assert torch.autograd.gradcheck(lambda x: loss({"projections": x}), z.requires_grad_())


def test_order_of_pictures_and_of_views_changes_nothing() -> None:
    z = torch.randn(2, 6, 4, dtype=torch.float64)
    whole, order = VICRegLoss()({"projections": z}), torch.randperm(6)
    torch.testing.assert_close(VICRegLoss()({"projections": z[:, order]}), whole)
    torch.testing.assert_close(VICRegLoss()({"projections": z.flip(0)}), whole)


def test_known_answers() -> None:
    z = torch.ones(2, 4, 3, dtype=torch.float64)
    assert [float(term) for term in vicreg_terms(z)] == pytest.approx([0, 1 - 0.01, 0])  # sqrt(1e-4)
    z = torch.tensor([[2.0, 2.0], [-2.0, -2.0]], dtype=torch.float64).expand(2, -1, -1)  # two equal dimensions
    assert [float(term) for term in vicreg_terms(z)] == pytest.approx([0, 0, 2 * 2 * 8.0**2 / 2])


def test_the_released_loss_is_twice_the_weight_of_the_variance() -> None:
    """The released code adds the variance terms of both views instead of halving them."""
    z = torch.randn(2, 5, 4, dtype=torch.float64) * 0.1
    invariance, variance, covariance = slow_terms(z.numpy())
    released = 25 * invariance + 25 * 2 * variance + covariance
    assert VICRegLoss(25, 50, 1)({"projections": z}).item() == pytest.approx(released, abs=1e-10)


def step(_: int) -> tuple[float, torch.Tensor]:
    """Loss and gradient of a layer's weight for this process's share of eight pictures, averaged as DDP does."""
    x = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight = torch.randn(5, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    share = torch.arange(8).chunk(process_count())[process_rank()]
    loss = VICRegLoss()({"projections": x[:, share] @ weight})
    loss.backward()
    assert weight.grad is not None
    if process_count() > 1:
        torch.distributed.all_reduce(weight.grad)
        weight.grad /= process_count()
    return loss.item(), weight.grad


def test_two_processes_have_the_loss_and_gradients_of_one() -> None:
    value, gradient = step(0)
    for other, its in in_processes(step, 2, 0):
        assert other == pytest.approx(value, abs=1e-6)
        torch.testing.assert_close(its, gradient, atol=1e-6, rtol=0)


def test_the_network_and_its_terms_in_the_log() -> None:
    network = VICReg(nn.Sequential(nn.Flatten(), nn.Linear(27, 6)), 6, width=8)
    output = network(list(torch.randn(2, 5, 1, 3, 3)))
    assert output["projections"].shape == (2, 5, 8)
    engine = SimpleNamespace(state=SimpleNamespace(output={"pred": output}))
    figures = Terms()(engine)
    assert list(figures) == ["invariance", "variance", "covariance"]
    expected = slow_terms(output["projections"].detach().double().numpy())
    assert list(figures.values()) == pytest.approx(expected, rel=1e-4)
    assert [tuple(p.shape) for p in VICReg(nn.Identity(), 16, width=32).head.parameters() if p.ndim == 2] == [
        (32, 16), (32, 32), (32, 32)
    ]  # fmt: skip
