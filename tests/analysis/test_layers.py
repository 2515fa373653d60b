from __future__ import annotations

import pytest
import torch
from torch import nn

from lessismore_transforms.analysis.layers import layer_names, short_names, watching
from lessismore_transforms.classification.network import Classifier
from lessismore_transforms.errors import UserError
from lessismore_transforms.weights.backbones import build_backbone

PICTURES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet50() -> nn.Module:
    return build_backbone("resnet50", weights="random")


def small() -> nn.Sequential:
    """A convolution, a batch norm and a ReLU that works in place."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)).eval()


def test_all_layers_of_a_resnet50(resnet50: nn.Module) -> None:
    names = layer_names(resnet50, PICTURES)
    assert len(names) == len(set(names)) == 124
    assert names[:4] == ["conv1", "bn1", "maxpool", "layer1.0.conv1"]
    first = ["conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample.0", "downsample.1"]
    assert names[3:12] == [*(f"layer1.0.{name}" for name in first), "layer1.0"]  # a block when its output comes
    assert names[-2:] == ["layer4.2", "avgpool"]
    kinds = [type(resnet50.get_submodule(name)).__name__ for name in names]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "Conv2d": 53, "BatchNorm2d": 53, "MaxPool2d": 1, "Bottleneck": 16, "AdaptiveAvgPool2d": 1
    }  # fmt: skip


def test_blocks_of_a_resnet50(resnet50: nn.Module) -> None:
    counts = {1: 3, 2: 4, 3: 6, 4: 3}
    blocks = [f"layer{stage}.{number}" for stage, count in counts.items() for number in range(count)]
    assert layer_names(resnet50, PICTURES, "blocks") == ["maxpool", *blocks]


def test_a_list_comes_in_the_order_of_execution(resnet50: nn.Module) -> None:
    assert layer_names(resnet50, PICTURES, ["layer4.2", "conv1", "layer1.0.relu"]) == [
        "conv1", "layer1.0.relu", "layer4.2"
    ]  # fmt: skip


def test_layers_of_a_classifier() -> None:
    network = Classifier(build_backbone("resnet18", weights="random"), 512, 2).eval()
    names = layer_names(network, PICTURES, "blocks")
    assert names[:2] == ["backbone.maxpool", "backbone.layer1.0"]
    assert short_names(names)[:2] == ["maxpool", "layer1.0"]
    assert len(layer_names(network, PICTURES)) == 20 + 20 + 8 + 2
    assert layer_names(network, PICTURES, ["classifier", "layer1.0"]) == ["backbone.layer1.0", "classifier"]


def test_layers_of_other_networks() -> None:
    names = layer_names(
        build_backbone("timm:resnet18", weights="random"), PICTURES, "blocks"
    )  # blocks of another package
    assert names == ["maxpool", *(f"layer{stage}.{number}" for stage in (1, 2, 3, 4) for number in (0, 1))]
    assert layer_names(small(), PICTURES) == ["0", "1"]


def test_short_names() -> None:
    assert short_names(["a.backbone.conv1", "a.backbone.layer1.0.bn1"]) == ["conv1", "layer1.0.bn1"]
    assert short_names(["layer1.0", "layer1.1"]) == ["layer1.0", "layer1.1"]
    assert short_names(["backbone.conv1"]) == ["conv1"]
    assert short_names(["backbone.conv1", "classifier"]) == ["backbone.conv1", "classifier"]
    assert short_names([]) == []


def test_watching_sees_a_batch_norm_before_the_relu_in_place() -> None:
    network, kept, at_once = small(), {}, {}

    def look(name: str, output: torch.Tensor) -> None:
        kept[name], at_once[name] = output, output.clone()

    with torch.inference_mode(), watching(network, ["0", "1"], look):
        network(PICTURES)
    with torch.inference_mode():
        expected = network[1](network[0](PICTURES))
    assert torch.equal(at_once["1"], expected)
    assert torch.equal(kept["1"], expected.relu())  # the trap
    assert not torch.equal(kept["1"], expected)
    assert not any(module._forward_hooks for module in network.modules())


def test_watching_shows_a_layer_once_and_leaves_no_hook_behind_an_error() -> None:
    shared = nn.Conv2d(3, 3, 1)
    network, seen = nn.Sequential(shared, nn.ReLU(), shared), []
    with torch.inference_mode(), watching(network, ["0"], lambda name, output: seen.append(output)):
        network(PICTURES)
    assert len(seen) == 1
    assert torch.equal(seen[0], shared(PICTURES))
    with pytest.raises(KeyError), watching(network, ["0"], lambda name, output: {}[name]):
        network(PICTURES)
    assert not shared._forward_hooks


def test_bad_layers() -> None:
    network = small()
    with pytest.raises(UserError, match=r"expected layers all, blocks or a list of names, found 'every'"):
        layer_names(network, PICTURES, "every")
    with pytest.raises(UserError, match=r"expected residual blocks, found none in a Sequential; give .* 0, 1, 2"):
        layer_names(network, PICTURES, "blocks")
    with pytest.raises(UserError, match=r"found none in a Linear; give .* those of another network"):
        layer_names(nn.Linear(32, 1).eval(), PICTURES)
    with pytest.raises(UserError, match="expected one name or more, found none"):
        layer_names(network, PICTURES, [])
    with pytest.raises(UserError, match=r"expected a network in eval mode, found training mode"):
        layer_names(network.train(), PICTURES)


def test_the_nearest_name_is_told() -> None:
    with pytest.raises(UserError, match=r"found 'layer1.0.con1', .* the closest one is layer1.0.conv1$"):
        layer_names(build_backbone("resnet18", weights="random"), PICTURES, ["layer1.0.con1"])


def test_a_layer_without_a_row_for_each_picture() -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, x])

    network = nn.Sequential(nn.Conv2d(3, 3, 1), Twice()).eval()
    assert layer_names(network, PICTURES) == ["0"]
    with pytest.raises(UserError, match=r"a row for each picture, found that 1 does not"):
        layer_names(network, PICTURES, ["1"])
