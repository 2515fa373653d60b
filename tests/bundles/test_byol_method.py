from __future__ import annotations

import math

import pytest
import torch
from helpers import bundle_scripts
from tiny_networks import FEATURES, flat_backbone, two_views
from torch import nn

scripts = bundle_scripts("ct_byol_pretraining")
BYOL, BYOLLoss = scripts.BYOL, scripts.BYOLLoss

pytestmark = pytest.mark.usefixtures("torch_seed")


def test_the_loss_is_that_of_equations_2_and_3() -> None:
    p, t = torch.randn(2, 2, 5, 4, dtype=torch.float64)
    expected = 0.0
    for i in range(5):
        for v in range(2):
            a, b = p[v, i] / p[v, i].norm(), t[v, i] / t[v, i].norm()
            expected += sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)) / 5
    assert BYOLLoss()({"predictions": p, "targets": t}).item() == pytest.approx(expected, abs=1e-12)
    assert BYOLLoss()({"predictions": t, "targets": t}).item() == pytest.approx(0, abs=1e-12)
    assert BYOLLoss()({"predictions": -t, "targets": t}).item() == pytest.approx(8)
    assert torch.autograd.gradcheck(lambda x: BYOLLoss()({"predictions": x, "targets": t}), p.requires_grad_())


def test_order_of_pictures_and_of_views_changes_nothing() -> None:
    p, t = torch.randn(2, 2, 6, 4, dtype=torch.float64)
    whole, order = BYOLLoss()({"predictions": p, "targets": t}), torch.randperm(6)
    torch.testing.assert_close(BYOLLoss()({"predictions": p[:, order], "targets": t[:, order]}), whole)
    torch.testing.assert_close(BYOLLoss()({"predictions": p.flip(0), "targets": t.flip(0)}), whole)


def test_a_prediction_is_compared_with_the_targets_of_the_other_view() -> None:
    network = BYOL(flat_backbone(), FEATURES, hidden=5, embedding=3)
    first, second = two_views()
    output = network([first, second])
    with torch.no_grad():
        torch.testing.assert_close(output["targets"][0], network.target(second.expand(-1, 3, -1, -1)))
        torch.testing.assert_close(output["targets"][1], network.target(first.expand(-1, 3, -1, -1)))
    assert not output["targets"].requires_grad
    assert not output["embedding"].requires_grad
    torch.testing.assert_close(output["embedding"].norm(dim=1), torch.ones(5))
    BYOLLoss()(output).backward()
    assert all(parameter.grad is None for parameter in network.target.parameters())
    learned = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert {name.split(".")[0] for name in learned} == {"backbone", "head", "predictor"}


def test_the_target_follows_its_weights_and_keeps_its_own_statistics() -> None:
    network = BYOL(flat_backbone(), FEATURES, hidden=5, embedding=3)
    before = [parameter.clone() for parameter in network.target.parameters()]
    for parameter in network.backbone.parameters():
        parameter.data += 1
    network.update_target(0.9)
    online = [*network.backbone.parameters(), *network.head.parameters()]
    for old, new, follower in zip(before, online, network.target.parameters(), strict=True):
        torch.testing.assert_close(follower, 0.9 * old + 0.1 * new)
    statistics = network.target[1][1].running_mean.clone()
    network(two_views())
    assert not torch.equal(network.target[1][1].running_mean, statistics)


def test_sizes_of_the_paper() -> None:
    network = BYOL(nn.Identity(), 2048)
    count = lambda part: sum(p.numel() for p in part.parameters())  # noqa: E731
    assert count(network.head) == 2048 * 4096 + 4096 + 2 * 4096 + 4096 * 256 + 256
    assert count(network.predictor) == 256 * 4096 + 4096 + 2 * 4096 + 4096 * 256 + 256
    assert scripts.LOWEST_LOSS == 0
    assert math.isclose(
        BYOLLoss()({"predictions": torch.ones(2, 3, 4), "targets": torch.ones(2, 3, 4)}).item(), 0, abs_tol=1e-6
    )
