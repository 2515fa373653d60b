"""`monai.bundle.load` by default gives each bundle's network with its weights, from any folder, or fails."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import BUNDLES, bundles
from monai.bundle import load
from torch import nn

from lessismore_transforms.classification.network import Classifier
from lessismore_transforms.errors import UserError
from lessismore_transforms.weights.backbones import build_backbone
from lessismore_transforms.weights.whole import refuse_parts

NETWORKS = [*bundles("pretraining"), *bundles("classification")]
Published = Callable[[str], tuple[Path, nn.Module]]
IMAGES = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))

pytestmark = [pytest.mark.usefixtures("one_thread", "hook"), pytest.mark.filterwarnings("ignore:parsing config_file")]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Copies of a bundle in a folder, and the network, one that no bundle builds by itself, whose weights they hold."""
    hub = tmp_path_factory.mktemp("hub")

    @cache
    def weights(classes: int | None) -> tuple[Path, nn.Module]:
        path = hub / f"{classes}.pt"
        network = build_backbone("resnet50", weights="random", seed=17)
        network = network if classes is None else Classifier(network, 2048, classes).eval()
        torch.save(network.state_dict(), path)
        return path, network

    def publish(bundle: str) -> tuple[Path, nn.Module]:
        classes = None
        if bundle.endswith("_classification"):
            content = json.loads((BUNDLES / bundle / "configs" / "inference.json").read_text())
            classes = len(content["defaults"]["classes"])
        path, network = weights(classes)
        if not (hub / bundle).exists():
            shutil.copytree(BUNDLES / bundle, hub / bundle, ignore=shutil.ignore_patterns("__pycache__"))
            (hub / bundle / "models").mkdir()
            os.link(path, hub / bundle / "models" / "model.pt")
        return hub, network

    return publish


@pytest.mark.parametrize("bundle", NETWORKS)
def test_the_default_call_fills_the_network(
    bundle: str, published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hub, network = published(bundle)
    loaded: Any = load(bundle, bundle_dir=hub, source="github", device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(IMAGES), network(IMAGES), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("bundle", "other", "kept"),
    [
        ("ct_moco_pretraining", {"backbone": "resnet18"}, r"all 100 tensors .* none for 23 of them, first layer1\.0\."),
        ("slice_classification", {"classes": 3}, r"all 267 tensors .* none for 2 of them, first classifier\.weight"),
    ],
)
def test_weights_of_another_network_are_refused(
    bundle: str, other: dict[str, Any], kept: str, published: Published
) -> None:
    hub, _ = published(bundle)
    with pytest.raises(UserError, match=kept):
        load(bundle, bundle_dir=hub, source="github", device="cpu", net_override=other)


def test_a_state_that_is_its_own_in_part_is_refused() -> None:
    network = refuse_parts(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    whole = {name: torch.ones_like(value) for name, value in network.state_dict().items()}
    assert network.load_state_dict(whole).missing_keys == []
    counter = "1.num_batches_tracked"  # which files of older versions lack
    network.load_state_dict({**whole, counter: network.state_dict()[counter]})
    with pytest.raises(UserError, match=r"all 6 tensors of this network, found none for 1 of them, first 0\.bias"):
        network.load_state_dict({**whole, "0.bias": network.state_dict()["0.bias"]})
    with pytest.raises(UserError, match="found none for 6 of them"):
        network.load_state_dict(network.state_dict())
    part_of_another = nn.ModuleDict({"encoder": network})
    part_of_another.load_state_dict({f"encoder.{name}": value for name, value in whole.items()})
