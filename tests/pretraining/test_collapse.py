"""A collapse that is provoked is told, and a healthy run is not: small networks on phantoms, three seeds each."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import bundle_scripts
from torch import nn
from torch.nn import functional as F

from lessismore_transforms.phantom import phantom_scan
from lessismore_transforms.pretraining.health import Collapse, HealthMonitor
from lessismore_transforms.pretraining.views import View, Views
from lessismore_transforms.reduction.intensity import min_max_uint8

STEPS, GRACE, SIZE = 100, 60, 48
simsiam, byol = bundle_scripts("ct_simsiam_pretraining"), bundle_scripts("ct_byol_pretraining")


@pytest.fixture(scope="module")
def slices() -> torch.Tensor:
    scans = (phantom_scan(seed, slices=32, size=SIZE).hu for seed in range(4))
    return torch.from_numpy(np.concatenate([min_max_uint8(scan, lower=-1024) for scan in scans])[:, None])


def backbone() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def with_gradients(prediction: dict[str, torch.Tensor]) -> torch.Tensor:
    """SimSiam's loss with gradients through what is predicted."""
    return -F.cosine_similarity(prediction["predictions"], prediction["projections"].flip(0), dim=2).mean()


def advice(slices: torch.Tensor, method: str, seed: int, *, broken: bool) -> list[str]:
    """What the health monitor says of a training."""
    torch.manual_seed(seed)
    rng, size = np.random.default_rng(seed), torch.full((32, 2), SIZE)
    views = Views([View(size=32, count=2, scale=(0.2, 1.0), flip_horizontal=0.5)], [0.2], [0.3], seed=seed)
    network: Any
    if method == "simsiam":
        network = simsiam.SimSiam(backbone(), 64, hidden=64, embedding=64, bottleneck=16, output_norm=False)
        loss_of = with_gradients if broken else simsiam.SimSiamLoss()
    else:
        network, loss_of = byol.BYOL(backbone(), 64, hidden=64, embedding=32), byol.BYOLLoss()
        if broken:
            network.predictor = nn.Identity()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2 if method == "simsiam" else 0.05, momentum=0.9)
    lowest = simsiam.LOWEST_LOSS if method == "simsiam" else byol.LOWEST_LOSS
    health, said = HealthMonitor([Collapse(grace=GRACE, lowest=lowest)], interval=10), []
    for step in range(1, STEPS + 1):
        if method == "byol":
            network.update_target(0.0 if broken else 0.99)
        prediction = network(views(slices[rng.choice(len(slices), 32, replace=False)], size, step=step))
        loss = loss_of(prediction)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = SimpleNamespace(output={"pred": prediction, "loss": loss.detach()}, iteration=step)
        health(SimpleNamespace(state=state))
        said += state.advice
    return said


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
@pytest.mark.parametrize("method", ["byol", "simsiam"])
def test_collapse(slices: torch.Tensor, method: str, seed: int) -> None:
    """SimSiam without a stop of gradients; BYOL without a predictor, whose target is the network itself."""
    assert advice(slices, method, seed, broken=False) == []
    (sentence,) = advice(slices, method, seed, broken=True)
    assert sentence.startswith("the embeddings collapse: at iteration ")
    assert "above its least, so that all pictures look alike to the network" in sentence
