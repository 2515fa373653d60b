from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lessismore_transforms.classification.network import (
    Classifier,
    build_classifier,
    load_classifier,
    save_classifier,
    weights_of,
)
from lessismore_transforms.weights.backbones import build_backbone, save_backbone, weights_id

pytestmark = pytest.mark.usefixtures("one_thread")
HEADER = {"backbone": "resnet18", "classes": ["a", "b", "c"], "mean": [0.3], "record": {}}


def images(count: int = 4, channels: int = 1) -> torch.Tensor:
    return torch.rand(count, channels, 32, 32, generator=torch.Generator().manual_seed(0))


def test_logits_are_the_linear_layer_on_the_features_of_the_encoder() -> None:
    network = build_classifier("resnet18", 3, seed=4)
    encoder = build_backbone("resnet18", weights="random", seed=4)
    with torch.no_grad():
        features = encoder(images().expand(-1, 3, -1, -1))  # (4, 512)
        expected = features @ network.classifier.weight.T + network.classifier.bias
        torch.testing.assert_close(network(images()), expected)
        torch.testing.assert_close(network(images().repeat(1, 3, 1, 1)), expected)


def test_the_encoder_is_filled_from_a_file_and_the_layer_depends_on_the_seed(tmp_path: Path) -> None:
    encoder = build_backbone("resnet18", weights="random", seed=7)
    save_backbone(tmp_path / "backbone.safetensors", encoder, {"method": "moco", "epoch": 12, "iteration": 60})
    first, second = (build_classifier("resnet18", 2, weights=tmp_path / "backbone.safetensors", seed=s) for s in (0, 1))
    for network in (first, second):
        assert weights_id(network.backbone) == weights_id(encoder)
    assert not torch.equal(first.classifier.weight, second.classifier.weight)
    expected = {"method": "moco", "id": weights_id(encoder), "epoch": 12, "iteration": 60}
    assert weights_of(tmp_path / "backbone.safetensors") == expected
    assert weights_of("random") == {"method": None, "id": None, "epoch": None, "iteration": None}
    with pytest.raises(ValueError, match=r"expected weights of method swav in .*, found those of moco"):
        build_classifier("resnet18", 2, weights=tmp_path / "backbone.safetensors", method="swav")
    with pytest.raises(ValueError, match=r"expected the 318 tensors of resnet50 \(pooled\), found 97 of them in"):
        build_classifier("resnet50", 2, weights=tmp_path / "backbone.safetensors")


def trained(network: Classifier) -> dict[str, torch.Tensor]:
    """The tensors after a step of SGD on whatever has a gradient."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    nn.functional.cross_entropy(network(images()), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_frozen_encoder_stays_to_the_bit_but_for_batch_norms_that_may_train(batch_norm: bool) -> None:
    network = build_classifier("resnet18", 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.freeze(True, batch_norm=batch_norm)
    after = trained(network)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    norms = {name for name in before if ".bn" in name or "downsample.1" in name}
    assert len(norms) == 20 * 5  # weight, bias, mean, variance and counter of 20 batch norms
    assert changed == {"classifier.weight", "classifier.bias"} | (set() if batch_norm else norms)
    network.freeze(False)
    later = trained(network)
    assert {name for name in before if not torch.equal(later[name], after[name])} == before.keys()


def test_a_classifier_survives_its_file_and_others_are_refused(tmp_path: Path) -> None:
    network = build_classifier("resnet18", 3, seed=2)
    save_classifier(tmp_path / "model.safetensors", network, HEADER)
    loaded, header = load_classifier(tmp_path / "model.safetensors")
    assert header.items() >= HEADER.items()
    with torch.no_grad():
        torch.testing.assert_close(loaded(images()), network(images()), rtol=0, atol=0)
    assert not loaded.training
    save_backbone(tmp_path / "backbone.safetensors", network.backbone, {"backbone": "resnet18"})
    with pytest.raises(ValueError, match=r"expected a model.safetensors of a classification run, found .*backbone"):
        load_classifier(tmp_path / "backbone.safetensors")
    tensors = {name: value for name, value in network.state_dict().items() if name != "classifier.bias"}
    header = {"backbone": "resnet18", "classes": '["a", "b", "c"]', "record": "{}"}
    save_file(tensors, tmp_path / "part.safetensors", header)
    with pytest.raises(
        ValueError, match=r"expected the 122 tensors of a resnet18 for 3 classes, found 121 .*first class"
    ):
        load_classifier(tmp_path / "part.safetensors")


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_classifier_becomes_torchscript() -> None:
    network = build_classifier("resnet18", 2)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(images()), network(images()))


def test_a_perceptron_for_a_head_is_saved_and_loaded(tmp_path: Path) -> None:
    network = build_classifier("resnet18", 3, seed=4, head="mlp")
    linear = build_classifier("resnet18", 3, seed=4)
    assert weights_id(network.backbone) == weights_id(linear.backbone)
    layers = network.classifier
    shapes = [tuple(parameter.shape) for parameter in layers.parameters()]
    assert shapes == [(512, 512), (512,), (512,), (512,), (3, 512), (3,)]
    with torch.no_grad():
        features = network.backbone(images().expand(-1, 3, -1, -1))
        hidden = features @ layers[0].weight.T + layers[0].bias
        hidden = hidden / (1 + layers[1].eps) ** 0.5  # the statistics of a batch norm that saw nothing
        hidden = torch.where(hidden > 0, hidden, 0.01 * hidden)
        torch.testing.assert_close(network(images()), hidden @ layers[3].weight.T + layers[3].bias)
    save_classifier(tmp_path / "model.safetensors", network, {**HEADER, "head": "mlp"})
    again, header = load_classifier(tmp_path / "model.safetensors")
    assert header["head"] == "mlp"
    with torch.no_grad():
        torch.testing.assert_close(again(images()), network(images()))
    save_classifier(tmp_path / "told_wrong.safetensors", network, HEADER)
    with pytest.raises(ValueError, match=r"expected the 122 tensors of a resnet18 for 3 classes, found"):
        load_classifier(tmp_path / "told_wrong.safetensors")
    with pytest.raises(ValueError, match="expected a head out of linear, mlp, found 'deep'; linear is usual"):
        build_classifier("resnet18", 2, head="deep")


def test_a_frozen_encoder_under_a_perceptron_keeps_its_statistics() -> None:
    network = build_classifier("resnet18", 3, seed=4, head="mlp")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.freeze(True)
    after = trained(network)
    changed = {name.partition(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"classifier"}
    assert after["classifier.1.num_batches_tracked"] == 1
