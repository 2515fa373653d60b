from __future__ import annotations

import pytest
import torch
from helpers import bundle_scripts
from tiny_networks import FEATURES, flat_backbone, two_views
from torch import nn

scripts = bundle_scripts("ct_simsiam_pretraining")
SimSiam, SimSiamLoss = scripts.SimSiam, scripts.SimSiamLoss

pytestmark = pytest.mark.usefixtures("torch_seed")


def test_the_loss_is_that_of_equations_1_to_4() -> None:
    p, z = torch.randn(2, 2, 5, 4, dtype=torch.float64)
    expected = 0.0
    for i in range(5):
        for v in range(2):
            other = z[1 - v, i]
            cosine = sum(float(a) * float(b) for a, b in zip(p[v, i], other, strict=True))
            expected -= cosine / float(p[v, i].norm() * other.norm()) / 2 / 5
    loss = SimSiamLoss()({"predictions": p, "projections": z})
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    assert torch.autograd.gradcheck(lambda x: SimSiamLoss()({"predictions": x, "projections": z}), p.requires_grad_())
    alike = torch.ones(2, 5, 4)
    assert SimSiamLoss()({"predictions": alike, "projections": alike}).item() == pytest.approx(scripts.LOWEST_LOSS)


def test_order_of_pictures_and_of_views_changes_nothing() -> None:
    p, z = torch.randn(2, 2, 6, 4, dtype=torch.float64)
    whole, order = SimSiamLoss()({"predictions": p, "projections": z}), torch.randperm(6)
    torch.testing.assert_close(SimSiamLoss()({"predictions": p[:, order], "projections": z[:, order]}), whole)
    torch.testing.assert_close(SimSiamLoss()({"predictions": p.flip(0), "projections": z.flip(0)}), whole)


def test_no_gradient_flows_through_what_is_predicted() -> None:
    p, z = (x.requires_grad_() for x in torch.randn(2, 2, 5, 4))
    SimSiamLoss()({"predictions": p, "projections": z}).backward()
    assert p.grad is not None
    assert z.grad is None
    network = SimSiam(flat_backbone(), FEATURES, hidden=5, embedding=4, bottleneck=3)
    output = network(two_views())
    assert output["predictions"].shape == output["projections"].shape == (2, 5, 4)
    assert output["projections"].requires_grad
    assert not output["embedding"].requires_grad
    torch.testing.assert_close(output["projections"].mean(1), torch.zeros(2, 4), atol=1e-6, rtol=0)  # the last norm


def test_the_released_network_has_no_predictor() -> None:
    network = SimSiam(flat_backbone(), FEATURES, hidden=5, embedding=4, layers=2, output_norm=False, bottleneck=0)
    output = network(two_views())
    torch.testing.assert_close(output["predictions"], output["projections"])
    assert [type(layer).__name__ for layer in network.head] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]


def test_sizes_of_the_paper() -> None:
    network = SimSiam(nn.Identity(), 2048)
    assert [tuple(p.shape) for p in network.head.parameters() if p.ndim == 2] == [(2048, 2048)] * 3
    assert [tuple(p.shape) for p in network.predictor.parameters() if p.ndim == 2] == [(512, 2048), (2048, 512)]
    assert [type(layer).__name__ for layer in network.head][-2:] == ["Linear", "BatchNorm1d"]
    assert not network.head[-1].affine
