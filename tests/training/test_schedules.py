"""Learning rate and weight decay, value by value."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lessismore_transforms.training.parameter_groups import parameter_groups
from lessismore_transforms.training.schedules import Schedule, stepped, warmup_cosine


def test_swav_as_intended() -> None:
    factor = partial(warmup_cosine, total=1000, warmup=100)
    assert [factor(0), factor(50), factor(100), factor(550)] == pytest.approx([0, 0.5, 1, 0.5])
    assert factor(999) == pytest.approx(0, abs=1e-5)
    assert factor(2000) == 0


def test_swav_as_released_goes_on_up_and_down() -> None:
    factor = partial(warmup_cosine, total=800, warmup=10, clamp=False)
    seen = {step: 0.15 * factor(step) for step in (10, 400, 800, 1000, 1590)}
    assert seen == pytest.approx({10: 0.15, 400: 0.0765, 800: 0.0, 1000: 0.0225, 1590: 0.15}, abs=5e-5)


def test_moco_falls_by_epochs() -> None:
    factor = partial(warmup_cosine, total=40, every=10)
    assert [factor(step) for step in (0, 9, 10, 19, 39)] == pytest.approx(
        [1, 1, 0.8535534, 0.8535534, 0.1464466]  # 0.5 (1 + cos(pi e / 4))
    )


def test_steps_after_a_warmup() -> None:
    factor = partial(stepped, milestones=(40, 80), warmup=10, start=0.1)
    assert [factor(step) for step in (0, 5, 10, 39, 40, 79, 80, 500)] == pytest.approx(
        [0.1, 0.55, 1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    assert stepped(3, milestones=(2, 3), factor=0.5) == 0.25
    assert stepped(3, milestones=()) == 1


def test_spark_from_a_200th_to_a_1000th() -> None:
    factor = partial(warmup_cosine, total=1600, warmup=40, start=0.005, end=0.001)
    assert [factor(0), factor(20), factor(40), factor(1600)] == pytest.approx([0.005, 0.5025, 1, 0.001])


def test_weight_decay_rises() -> None:
    factor = partial(warmup_cosine, total=100, end=5.0)  # 0.04 to 0.2
    assert [0.04 * factor(step) for step in (0, 50, 100)] == pytest.approx([0.04, 0.12, 0.2])


def test_a_warm_up_as_long_as_the_training_is_refused() -> None:
    with pytest.raises(ValueError, match="found 100 of 100 iterations"):
        warmup_cosine(0, total=100, warmup=100)


def test_schedule_multiplies_each_group_and_leaves_zero() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    other = torch.nn.Parameter(torch.zeros(2))
    groups = [{"params": [weight], "weight_decay": 0.04}, {"params": [other], "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.5)
    schedule = Schedule(optimizer, partial(warmup_cosine, total=100, end=5.0), "weight_decay")
    engine = SimpleNamespace(state=SimpleNamespace(iteration=51))
    schedule(engine)
    schedule(engine)  # from the first value, not from the last one
    assert [group["weight_decay"] for group in optimizer.param_groups] == pytest.approx([0.12, 0.0])
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


def test_groups_of_parameters() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    network.add_module("token", nn.Embedding(2, 2))
    (frozen,) = nn.Linear(1, 1, bias=False).requires_grad_(False).parameters()
    network[2].register_parameter("frozen", frozen)
    named = dict(network.named_parameters())

    def names(group: dict[str, Any]) -> list[str]:
        return [name for name, parameter in named.items() if any(parameter is other for other in group["params"])]

    decayed, others = parameter_groups(network, 0.1, without_decay=["token"])
    assert (names(decayed), decayed["weight_decay"]) == (["0.weight", "2.weight"], 0.1)
    assert (names(others), others["weight_decay"]) == (["0.bias", "1.weight", "1.bias", "2.bias", "token.weight"], 0)
    assert [names(group) for group in parameter_groups(network, 0.1, norms_too=True)] == [
        [name for name in named if name != "2.frozen"]
    ]


def test_a_constant_learning_rate_and_a_decay_that_changes() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    groups = parameter_groups(network, 0.1, norms_too=True, constant=["1."])
    optimizer = torch.optim.SGD(groups, lr=0.5)
    engine = SimpleNamespace(state=SimpleNamespace(iteration=2))
    Schedule(optimizer, lambda iteration: 0.5**iteration)(engine)
    Schedule(optimizer, lambda iteration: 0.5**iteration, key="weight_decay")(engine)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.25, 0.05), (0.5, 0.05)]
