from __future__ import annotations

import argparse
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision import models

from lessismore_transforms.errors import UserError
from lessismore_transforms.weights.backbones import build_backbone, feature_size, read_tensors, to_encoder, weights_id

HEAD = ("fc.weight", "fc.bias")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def plain() -> torch.nn.Module:
    """torchvision's own ResNet18, made without our code."""
    torch.manual_seed(7)
    network = models.resnet18(weights=None)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="module")
def tensors(plain: torch.nn.Module) -> dict[str, torch.Tensor]:
    return plain.state_dict()


@pytest.fixture(scope="module")
def files(tensors: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same weights as each kind of file, and without the last layer."""
    folder = tmp_path_factory.mktemp("weights")
    backbone = {key: value for key, value in tensors.items() if key not in HEAD}
    paths = {kind: folder / kind for kind in ("all.safetensors", "backbone.safetensors", "all.pt", "backbone.pth")}
    for kind, path in paths.items():
        content = tensors if kind.startswith("all") else backbone
        if path.suffix == ".safetensors":
            save_file(content, path)
        else:
            torch.save(content, path)
    return paths


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No network, and torchvision's folder of weights, which is empty."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "hub" / "checkpoints"


def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def pooled(network: torch.nn.Module) -> torch.Tensor:
    """The features before the last layer of a plain ResNet, (2, D)."""
    with torch.no_grad():
        return torch.nn.Sequential(*list(network.children())[:-1])(images()).flatten(1)


def run(network: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return network(images())


def refusal(name: str, **options: object) -> str:
    with pytest.raises(ValueError, match="expected") as caught:
        build_backbone(name, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_kind_of_file_gives_the_same_network(plain, files):
    for path in files.values():
        network = build_backbone("resnet18", weights=path)
        assert not network.training
        torch.testing.assert_close(run(network), pooled(plain), rtol=0, atol=1e-6)
    for kind in ("all.safetensors", "all.pt"):
        torch.testing.assert_close(
            run(build_backbone("resnet18", weights=str(files[kind]), output="logits")), run(plain)
        )


def test_a_resnet50_has_the_318_names_of_torchvision():
    network = build_backbone(weights="random")
    names = list(network.state_dict())
    assert len(names) == 318
    assert [*names, *HEAD] == list(models.resnet50(weights=None).state_dict())
    assert sum(value.numel() for value in network.parameters()) == 23_508_032
    assert run(network).shape == (2, 2048)


def test_random_weights_are_those_of_the_seed():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    networks = [build_backbone("resnet18", weights="random", seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(3), expected)  # the caller's random numbers
    ids = [weights_id(network) for network in networks]
    assert ids[0] == ids[1] != ids[2]


def test_what_is_not_the_network_is_refused(tensors, files, tmp_path):
    text = refusal("resnet50", weights=files["backbone.safetensors"])
    asked = {key: value.shape for key, value in models.resnet50(weights=None).state_dict().items() if key not in HEAD}
    shared = len(asked.items() & {key: value.shape for key, value in tensors.items()}.items())
    assert 0 < shared < 120
    assert f"the 318 tensors of resnet50 (pooled), found {shared} of them" in text
    assert "first layer1.0.conv3.weight" in text
    assert "first layer1.0.conv1.weight (64, 64, 3, 3) instead of (64, 64, 1, 1)" in text

    text = refusal("resnet18", weights=files["backbone.pth"], output="logits")
    assert "found 120 of them" in text
    assert "2 missing, first fc.weight" in text

    def refused(content: dict[str, torch.Tensor], **options: object) -> str:
        path = tmp_path / "changed.safetensors"
        save_file(content, path)
        return refusal("resnet18", weights=path, **options)

    without = {key: value for key, value in tensors.items() if key != "bn1.bias"}
    assert "found 119 of them" in (text := refused(without))
    assert "(1 missing, first bn1.bias)" in text
    deeper = {**tensors, "layer4.2.conv1.weight": torch.zeros(1)}  # as a larger network that holds all of a ResNet18
    assert "(1 unknown, first layer4.2.conv1.weight)" in refused(deeper)
    other = {**tensors, "fc.weight": torch.zeros(2, 512), "fc.bias": torch.zeros(2)}
    assert "2 of another shape, first fc.weight (2, 512) instead of (1000, 512)" in refused(other, output="logits")
    prefixed = {f"net.{key}": value for key, value in tensors.items()}
    assert "found 0 of them" in (text := refused(prefixed))
    assert "122 unknown, first net." in text
    assert "known layouts are a plain state_dict, our own" in text  # only where no name fits at all
    assert "known layouts" not in refused(deeper)


def test_any_head_may_be_left_aside(plain, tensors, tmp_path):
    head = {"fc.0.weight": torch.zeros(8, 512), "fc.2.weight": torch.zeros(4, 8)}  # MoCo's
    save_file({**{key: value for key, value in tensors.items() if key not in HEAD}, **head}, tmp_path / "a.safetensors")
    network = build_backbone("resnet18", weights=tmp_path / "a.safetensors")
    torch.testing.assert_close(run(network), pooled(plain), rtol=0, atol=1e-6)


def test_counters_of_batch_norms_may_be_missing(plain, tensors, tmp_path):
    torch.save({key: value for key, value in tensors.items() if "num_batches" not in key}, tmp_path / "old.pth")
    network = build_backbone("resnet18", weights=tmp_path / "old.pth", output="logits")
    torch.testing.assert_close(run(network), run(plain))


def test_files_that_cannot_be_read_are_refused(files, tmp_path):
    assert "none; fix the path" in refusal("resnet18", weights=tmp_path / "none.pt")
    assert ".safetensors, .pt, .pth, .ckpt or .pth.tar, found" in refusal("resnet18", weights=tmp_path / "weights.h5")
    for kind in ("all.safetensors", "all.pt"):
        (damaged := tmp_path / kind).write_bytes(files[kind].read_bytes()[:2000])
        assert "damaged or unsafe" in refusal("resnet18", weights=damaged)
        damaged.write_bytes(b"")
        assert "damaged or unsafe" in refusal("resnet18", weights=damaged)
    torch.save({"args": argparse.Namespace(lr=1)}, tmp_path / "object.pt")
    assert "found args; save the network's state_dict" in refusal("resnet18", weights=tmp_path / "object.pt")
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "nested.pt")
    assert "found epoch, state_dict; save the network's state_dict" in refusal(
        "resnet18", weights=tmp_path / "nested.pt"
    )
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    assert "found Tensor" in refusal("resnet18", weights=tmp_path / "tensor.pt")


def test_wrong_arguments_are_named():
    assert "'resnet5'; similar names are resnet50" in (text := refusal("resnet5", weights="random"))
    assert "timm:NAME" in text
    assert "similar names are resnet50" in refusal("ResNet50", weights="random")
    assert "found 'fasterrcnn_resnet50_fpn'" in refusal("fasterrcnn_resnet50_fpn", weights="random")
    assert "out of pooled, logits, found 'features'" in refusal("resnet18", weights="random", output="features")
    for nothing in (None, ""):
        assert "found none; give a file, or imagenet, or random" in refusal("resnet18", weights=nothing)


def test_imagenet_weights_offline(offline, plain, tensors):
    text = refusal("resnet18", weights="imagenet")
    assert f"at {offline / 'resnet18-f37072fd.pth'} or on the network" in text
    assert "name resolution" in text
    assert "put https://download.pytorch.org/models/resnet18-f37072fd.pth there (TORCH_HOME" in text
    assert "resnet50-0676ba61.pth" in refusal("resnet50", weights="imagenet")  # IMAGENET1K_V1

    torch.save(tensors, offline / "resnet18-f37072fd.pth")
    network = build_backbone("resnet18", weights="imagenet")
    torch.testing.assert_close(run(network), pooled(plain), rtol=0, atol=1e-6)
    (offline / "resnet18-f37072fd.pth").write_bytes(b"half a file")
    assert "put https://download.pytorch.org" in refusal("resnet18", weights="imagenet")


@pytest.mark.parametrize(
    ("name", "width"), [("squeezenet1_1", 512), ("mobilenet_v3_small", 1024), ("shufflenet_v2_x0_5", 1024)]
)
def test_other_networks_of_torchvision(name, width, tmp_path):
    network = build_backbone(name, weights="random", output="logits")
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    backbone = build_backbone(name, weights=tmp_path / "w.safetensors", seed=1)
    last = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)][-1]
    seen = []
    last.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    assert run(network).shape == (2, 1000)
    features = seen[0].relu().mean((2, 3)) if name == "squeezenet1_1" else seen[0]
    assert features.shape == (2, width)
    torch.testing.assert_close(run(backbone), features)
    torch.testing.assert_close(run(to_encoder(backbone)), features, rtol=1e-5, atol=1e-5)


def test_networks_of_timm(plain, files, tmp_path):
    pytest.importorskip("timm")
    network = build_backbone("timm:resnet18", weights=files["all.safetensors"])  # has torchvision's names
    # Features are up to 7, where float32 has steps of 5e-7: another order of sums differs by some of these.
    torch.testing.assert_close(run(network), pooled(plain), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(run(to_encoder(network)), pooled(plain), rtol=1e-5, atol=1e-5)
    assert run(build_backbone("timm:resnet18", weights=files["all.pt"], output="logits")).shape == (2, 1000)
    assert "similar names are resnet18" in refusal("timm:resnett18", weights="random")
    assert "found 'hf-hub:timm/resnet18'" in refusal("timm:hf-hub:timm/resnet18", weights="random")
    assert 'timm.create_model("resnet18", pretrained=True)' in refusal("timm:resnet18", weights="imagenet")
    assert "first layer1.0.conv1.weight" in refusal("timm:resnet50", weights=files["all.pt"])


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="pip install timm"):
        build_backbone("timm:resnet18", weights="random")


def test_an_encoder_gives_the_same_features_without_batch_norms(plain):
    for name in ("resnet18", "resnet50"):
        network = build_backbone(name, weights="random")
        generator = torch.Generator().manual_seed(2)
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1, generator=generator)
                layer.running_var.uniform_(0.5, 1.5, generator=generator)
        before = weights_id(network)
        expected = run(network)
        encoder = to_encoder(network.train())
        assert not encoder.training
        assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in encoder.modules())
        assert (run(encoder) - expected).abs().max() < 1e-5 * expected.abs().max()
        assert weights_id(network) == before  # the network itself stays as it was


def test_the_id_is_that_of_the_weights(plain, tensors, files, tmp_path):
    backbone = build_backbone("resnet18", weights=files["all.pt"])
    assert weights_id(files["all.pt"]) == weights_id(files["all.safetensors"]) == weights_id(plain)
    assert weights_id(files["backbone.pth"]) == weights_id(backbone) != weights_id(plain)
    assert weights_id(backbone.to(memory_format=torch.channels_last)) == weights_id(files["backbone.pth"])
    changed = {key: value.clone() for key, value in load_file(files["all.safetensors"]).items()}
    changed["bn1.bias"][3] += 1e-6
    save_file(changed, tmp_path / "changed.safetensors")
    assert weights_id(tmp_path / "changed.safetensors") != weights_id(plain)
    save_file({"a": torch.tensor([1.0, 2.0])}, tmp_path / "small.safetensors")
    assert weights_id(tmp_path / "small.safetensors") == "c48867ed9cbd4f65"  # manifests hold it: it must not change
    assert read_tensors(tmp_path / "small.safetensors")["a"].tolist() == [1, 2]


def test_the_module_loads_no_torch():
    code = (
        "import sys, lessismore_transforms.weights.backbones, lessismore_transforms.reduction.embedding\n"
        "print([name for name in ('torch', 'torchvision', 'timm', 'safetensors') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["vit_b_16", "googlenet", "inception_v3"])
def test_networks_that_cannot_be_trained_on_views(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected a network .*; take a ResNet"):
        feature_size(build_backbone(name, weights="random"))


def test_feature_size_leaves_the_network_as_it_is() -> None:
    backbone = build_backbone("resnet18", weights="random")
    before = weights_id(backbone)
    assert feature_size(backbone) == 512
    assert weights_id(backbone) == before
    assert not backbone.training
