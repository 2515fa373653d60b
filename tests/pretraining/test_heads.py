from __future__ import annotations

import torch
from torch import nn

from lessismore_transforms.pretraining.heads import projection_head


def test_parameters_of_the_papers_heads():
    count = lambda head: sum(p.numel() for p in head.parameters())  # noqa: E731
    assert count(projection_head(2048, 2048, 128)) == 4_462_720  # SwAV
    assert count(projection_head(2048, 2048, 128, norm=False)) == 2048 * 2048 + 2048 + 2048 * 128 + 128  # MoCo v2


def test_by_hand_without_a_norm():
    head = projection_head(2, 3, 1, norm=False)
    with torch.no_grad():
        head[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        head[0].bias.copy_(torch.tensor([0.0, -1.0, -10.0]))
        head[-1].weight.copy_(torch.tensor([[2.0, 3.0, 100.0]]))
        head[-1].bias.fill_(0.5)
    assert head(torch.tensor([[4.0, 5.0], [-4.0, 0.0]])).tolist() == [[2 * 4 + 3 * 4 + 0.5], [0.5]]


def test_with_a_norm_every_hidden_unit_has_mean_zero_before_the_relu():
    torch.manual_seed(0)
    head = projection_head(5, 7, 2)
    assert [type(layer) for layer in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    hidden = head[:2](torch.randn(64, 5) * 3 + 9)
    torch.testing.assert_close(hidden.mean(0), torch.zeros(7), atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden.var(0, correction=0), torch.ones(7), atol=1e-3, rtol=0)
