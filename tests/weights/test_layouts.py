from __future__ import annotations

import argparse
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import bundle_scripts
from safetensors.torch import save_file
from torchvision import models

from lessismore_transforms.methods import METHODS
from lessismore_transforms.training.checkpoint import Checkpoint
from lessismore_transforms.weights.backbones import build_backbone, read_tensors, save_backbone, weights_id
from lessismore_transforms.weights.layouts import read_backbone

Tensors = dict[str, torch.Tensor]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    """The backbone of torchvision's own ResNet18, 120 tensors."""
    return backbone_of(models.resnet18, seed=7)


def backbone_of(network: Callable[..., torch.nn.Module], seed: int) -> Tensors:
    torch.manual_seed(seed)
    state = network(weights=None).state_dict()
    return {
        key: torch.rand_like(value) if value.ndim == 1 else value for key, value in state.items() if key[:2] != "fc"
    }


def prefixed(prefix: str, content: Tensors) -> Tensors:
    return {f"{prefix}{key}": value for key, value in content.items()}


def linear(rows: int, columns: int, *, bias: bool = True) -> Tensors:
    return {"weight": torch.rand(rows, columns), **({"bias": torch.rand(rows)} if bias else {})}


def norm(width: int) -> Tensors:
    counter = {"num_batches_tracked": torch.tensor(5)}
    return {key: torch.rand(width) for key in ("weight", "bias", "running_mean", "running_var")} | counter


def mlp(prefix: str, *, bias: bool = True) -> Tensors:
    """A linear layer, a batch norm, a ReLU without tensors, a linear layer."""
    first, last = linear(8, 6, bias=bias), linear(4, 8)
    return prefixed(f"{prefix}0.", first) | prefixed(f"{prefix}1.", norm(8)) | prefixed(f"{prefix}3.", last)


def lightning(state: Tensors, **options: object) -> dict[str, object]:
    """What Lightning 1.6 saves: the keys and kinds of values that its `dump_checkpoint` writes."""
    score = torch.tensor(5.9)
    progress = {"total": {"ready": 9, "completed": 9, "started": 9, "processed": 9}, "current": {"ready": 9}}
    return {
        "epoch": 799,
        "global_step": 1_524_000,
        "pytorch-lightning_version": "1.6.5",
        "state_dict": OrderedDict(state),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_loop.batch_progress": {**progress, "is_last_batch": True}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': 'train_loss', 'mode': 'min', 'every_n_train_steps': 0}": {
                "monitor": "train_loss",
                "best_model_score": score,
                "best_k_models": {"runs/epoch=799-train_loss=5.90.ckpt": score},
                "kth_value": score,
                "dirpath": "runs",
            }
        },
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.rand(3)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [
            {
                "base_lrs": [0.15],
                "last_epoch": 800,
                "_last_lr": [np.float64(0.07)],
                "lr_lambdas": [None],
                "verbose": False,
            }
        ],
        "NativeMixedPrecisionPlugin": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 12},
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "base_encoder": "resnet50",
            "batch_size": np.int64(128),
            "args": argparse.Namespace(lr=np.float32(0.1), tags=["a"], offline=False, gpus=None),
            **options,
        },
    }


def swav(tensors: Tensors) -> dict[str, object]:
    heads = {**mlp("model.projection_head."), "model.prototypes.weight": torch.rand(5, 4)}
    return lightning(prefixed("model.", tensors) | heads, nmb_crops=[2, 6])


def moco(tensors: Tensors, *, use_mlp: bool) -> dict[str, object]:
    width = tensors["layer4.1.bn2.weight"].numel()
    layers = {"fc.0.": (width, width), "fc.2.": (128, width)} if use_mlp else {"fc.": (128, width)}
    head = {key: value for name, shape in layers.items() for key, value in prefixed(name, linear(*shape)).items()}
    queries = prefixed("encoder_q.", tensors | head)
    keys = prefixed("encoder_k.", {key: torch.zeros_like(value) for key, value in (tensors | head).items()})
    queue = {"queue": torch.rand(128, 16), "queue_ptr": torch.zeros(1, dtype=torch.int64)}
    return lightning(queries | keys | queue | prefixed("val_", queue), use_mlp=use_mlp)


def byol(tensors: Tensors) -> dict[str, object]:
    heads = mlp("projector.model.", bias=False) | mlp("predictor.model.", bias=False)
    online = prefixed("online_network.", prefixed("encoder.", tensors) | heads)
    target = prefixed(
        "target_network.", prefixed("encoder.", {key: value * 0 for key, value in tensors.items()}) | heads
    )
    return lightning(online | target)


def spark_still(tensors: Tensors) -> dict[str, object]:
    rest = {
        "dense_decoder.dec.0.up_sample.weight": torch.rand(2, 2),
        "densify_norms.0.bn.weight": torch.rand(2),
        "densify_projs.0.weight": torch.rand(2, 2),
        "mask_tokens.0": torch.rand(1, 2, 1, 1),
        "imn_m": torch.rand(1, 3, 1, 1),
    }
    config = {
        "mask_ratio": 0.6,
        "densify_norm_str": "bn",
        "sbn": False,
        "hierarchy": 4,
        "sparse_encoder.input_size": 224,
    }
    return {
        "args": "{'model': 'resnet50', 'ep': 1600}",
        "arch": "resnet50",
        "epoch": 799,
        "performance_desc": "0.5021 0.5034",
        "module": OrderedDict(prefixed("sparse_encoder.sp_cnn.", tensors) | rest | {"config": config}),
        "optimizer": {"state": {0: {"exp_avg": torch.rand(2)}}, "param_groups": [{"lr": np.float64(2e-5)}]},
        "is_pretrain": True,
    }


def spark_bare(tensors: Tensors) -> dict[str, object]:
    return {"arch": "resnet50", "module": OrderedDict(tensors), "is_pretrain": False}


def small_data_ssl(tensors: Tensors) -> dict[str, object]:
    """Its SimCLR, DCLW, SimSiam and VICReg have the same names, so that the file does not tell its method."""
    projector = {f"projector.{name}": torch.zeros(2) for name in ("0.weight", "0.bias", "1.running_mean", "3.weight")}
    return {"model": prefixed("backbone.", tensors) | projector, "optimizer": {"state": {}}, "epochs": 249}


PUBLISHED = {
    "swav": ("swav", "epoch=799-train_loss=5.90.ckpt", swav),
    "moco without MLP": ("moco", "last.ckpt", lambda x: moco(x, use_mlp=False)),
    "moco with MLP": ("moco", "last.ckpt", lambda x: moco(x, use_mlp=True)),
    "moco of a distributed run": (
        "moco",
        "checkpoint_0199.pth.tar",
        lambda x: {"epoch": 200, "state_dict": prefixed("module.", moco(x, use_mlp=True)["state_dict"])},
    ),
    "byol": ("byol", "last.ckpt", byol),
    "spark with decoder": ("spark", "resnet50_still_pretraining.pth", spark_still),
    "spark for fine-tuning": ("spark", "Epoch_750_Loss_0.5034_resnet50_1kpretrained.pth", spark_bare),
    "SmallDataSSL": ("plain", "checkpoint.pt", small_data_ssl),
    "SmallDataSSL, the encoder": ("plain", "encoder.pth", lambda x: OrderedDict(x)),
    "spark as timm": ("plain", "resnet50_1kpretrained_timm_style.pth", lambda x: x),
    "plain of a distributed run": ("plain", "plain.pth", lambda x: prefixed("module.", x)),
    "plain in a training's checkpoint": ("plain", "best.pth.tar", lambda x: {"epoch": 3, "state_dict": x}),
}


def test_all_published_methods_are_tried():
    assert {method for method, _, _ in PUBLISHED.values()} == {"plain"} | {
        name for name, method in METHODS.items() if method.layout
    }


def assert_same(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def refusal(action: Callable[..., object], *args: object, **options: object) -> str:
    with pytest.raises(ValueError, match="expected") as caught:
        action(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def written(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(("method", "name", "layout"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_layouts_fill_the_backbone(method, name, layout, tensors, tmp_path):
    path = written(tmp_path / name, layout(tensors))
    found = read_backbone(path)
    assert found[1] == method
    assert_same(found[0], tensors)
    network = build_backbone("resnet18", weights=path)
    assert_same(network.state_dict(), tensors)
    assert weights_id(path) == weights_id(network)
    assert "2 missing, first fc.weight" in refusal(build_backbone, "resnet18", weights=path, output="logits")


def test_a_resnet50_has_318_of_the_328_tensors_of_swav(tmp_path):
    expected = backbone_of(models.resnet50, seed=1)
    content = swav(expected)
    assert len(content["state_dict"]) == 328
    found, method = read_backbone(written(tmp_path / "swav.ckpt", content))
    assert (len(found), method) == (318, "swav")
    assert_same(build_backbone("resnet50", weights=tmp_path / "swav.ckpt", method="SwAV").state_dict(), expected)


def test_our_own_files(tensors, tmp_path):
    moco_class = bundle_scripts("ct_moco_pretraining").MoCo
    backbone = build_backbone("resnet18", weights=written(tmp_path / "start.pt", tensors))
    network = moco_class(backbone, 512, embedding=8, queue_length=8)
    torch.nn.init.zeros_(network.key_encoder[0].conv1.weight)  # the other encoder of the file
    identity = {"method": "moco", "slices": "0123", "seed": 0}
    checkpoint = Checkpoint(
        tmp_path,
        network,
        {"optimizer": torch.optim.SGD(network.parameters())},
        identity=identity,
        sampler=None,
        plan=None,
    )
    checkpoint.path.parent.mkdir()
    checkpoint._save(SimpleNamespace(state=SimpleNamespace(iteration=3), scaler=None))
    save_backbone(tmp_path / "backbone.safetensors", backbone, {"method": "moco", "backbone": "resnet18"})
    for path in (checkpoint.path, tmp_path / "backbone.safetensors"):
        found, method = read_backbone(path, method="moco")
        assert method == "moco"
        assert_same(found, tensors)
        assert_same(build_backbone("resnet18", weights=path).state_dict(), tensors)
        assert "of method swav" in refusal(read_backbone, path, method="swav")


def test_safetensors_of_a_published_layout(tensors, tmp_path):
    state = moco(tensors, use_mlp=False)["state_dict"]
    save_file({key: value.clone() for key, value in state.items()}, tmp_path / "moco.safetensors")
    found, method = read_backbone(tmp_path / "moco.safetensors")
    assert method == "moco"
    assert_same(found, tensors)


def test_the_last_layer_of_a_plain_network_stays(tensors, tmp_path):
    whole = {**tensors, **prefixed("fc.", linear(1000, 512))}
    path = written(tmp_path / "plain.pth", {"state_dict": whole})
    assert_same(read_tensors(path), whole)
    assert_same(build_backbone("resnet18", weights=path).state_dict(), tensors)
    assert_same(build_backbone("resnet18", weights=path, output="logits").state_dict(), whole)


def test_checkpoints_of_numpy_1(tensors, tmp_path):
    """NumPy 1 calls its scalars numpy.core.multiarray.scalar, and that is when the published files were made."""
    written(tmp_path / "new.ckpt", swav(tensors))
    with zipfile.ZipFile(tmp_path / "new.ckpt") as new, zipfile.ZipFile(tmp_path / "old.ckpt", "w") as old:
        for name in new.namelist():
            data = new.read(name)
            if name.endswith("data.pkl"):
                data, count = re.subn(rb"numpy\._?core\.multiarray", b"numpy.core.multiarray", data)
                assert count
            old.writestr(name, data)
    assert_same(read_backbone(tmp_path / "old.ckpt")[0], tensors)


@pytest.mark.parametrize("spelling", ["swav", "SwAV", "SWAV"])
def test_a_method_given_and_found_agree(spelling, tensors, tmp_path):
    path = written(tmp_path / "swav.ckpt", swav(tensors))
    assert_same(build_backbone("resnet18", weights=path, method=spelling).state_dict(), tensors)
    plain = written(tmp_path / "plain.pt", tensors)
    assert read_backbone(plain, method=spelling)[1] == "plain"


def test_a_method_misspelt_or_another_is_refused(tensors, tmp_path):
    path = written(tmp_path / "swav.ckpt", swav(tensors))
    for action in (lambda **o: build_backbone("resnet18", weights=path, **o), lambda **o: read_backbone(path, **o)):
        text = refusal(action, method="SvaV")  # with which the published notebook went on with random weights
        assert text == f"expected a method out of {', '.join(METHODS)}, found 'SvaV'; did you mean swav?"
        text = refusal(action, method="MoCo v2")
        assert text == (
            f"expected weights of method moco in {path}, found those of swav: give method swav, or another file"
        )
    text = refusal(build_backbone, "resnet18", weights="random", method="swav")
    assert text == "expected a file of weights for method swav, found random; give one"
    assert "did you mean swav" in refusal(build_backbone, "resnet18", weights="imagenet", method="SvaV")


@pytest.mark.parametrize("layout", ["swav", "moco without MLP", "spark as timm"])
def test_a_resnet18_for_a_resnet50_names_what_is_missing(layout, tensors, tmp_path):
    _, name, content = PUBLISHED[layout]
    text = refusal(build_backbone, "resnet50", weights=written(tmp_path / name, content(tensors)))
    asked = {key: value.shape for key, value in models.resnet50(weights=None).state_dict().items() if key[:2] != "fc"}
    shared = asked.items() & {key: value.shape for key, value in tensors.items()}.items()
    missing = [key for key in asked.keys() - tensors.keys() if "num_batches" not in key]
    assert f"the 318 tensors of resnet50 (pooled), found {len(shared)} of them in {tmp_path / name} (" in text
    assert f"({len(missing)} missing, first layer1.0.conv3.weight; " in text


def test_a_checkpoint_that_lacks_one_tensor_is_refused(tensors, tmp_path):
    content = byol({key: value for key, value in tensors.items() if key != "layer3.0.bn1.running_var"})
    text = refusal(build_backbone, "resnet18", weights=written(tmp_path / "byol.ckpt", content))
    assert "found 119 of them" in text
    assert "(1 missing, first layer3.0.bn1.running_var)" in text


def test_unknown_and_ambiguous_layouts_are_refused(tensors, tmp_path):
    def refused(content: object) -> str:
        return refusal(read_backbone, written(tmp_path / "x.pt", content))

    mixed = {**prefixed("encoder_q.", tensors), **prefixed("online_network.encoder.", tensors)}
    assert "found those of moco and byol (encoder_q.*, online_network.encoder.*)" in refused({"state_dict": mixed})
    text = refused({"epoch": 3, "model": tensors, "args": argparse.Namespace(lr=1)})
    assert text.endswith("found epoch, model, args; save the network's state_dict")
    for layout in ("model.prototypes.*", "encoder_q.*", "online_network.encoder.*", "sparse_encoder.sp_cnn.*"):
        assert layout in text
    assert "found module, state_dict;" in refused({"module": tensors, "state_dict": tensors})  # which is meant?
    assert "found conv1.weight, epoch;" in refused({"conv1.weight": torch.zeros(1), "epoch": 3})
    assert "found format, identity, state;" in refused(
        {"format": 1, "identity": {"method": "swav"}, "state": {"network": {"encoder.conv1.weight": torch.zeros(1)}}}
    )
    assert "found list;" in refused([tensors["conv1.weight"]])
    assert "found nothing;" in refused({})
    wrapped = written(tmp_path / "w.pt", {"state_dict": prefixed("net.", tensors)})
    text = refusal(build_backbone, "resnet18", weights=wrapped)
    assert "found 0 of them" in text
    assert "first net.conv1.weight" in text
    assert "known layouts are a plain state_dict" in text


class Attack:
    """An object whose reading calls a function."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("name", ["a.ckpt", "a.pt", "a.pth", "a.pth.tar"])
def test_a_malicious_file_is_refused_by_name_and_not_executed(name, tensors, tmp_path):
    trace = tmp_path / "trace"
    for attack, called in (
        (Attack(os.system, f"touch '{trace}'"), f"{os.name}.system"),
        (Attack(eval, f"open({str(trace)!r}, 'w')"), "eval"),
        (Attack(os.mkdir, trace), f"{os.name}.mkdir"),
    ):
        content = swav(tensors) | {"hyper_parameters": attack}
        text = refusal(build_backbone, "resnet18", weights=written(tmp_path / name, content))
        assert f"found {called}, which is not known to be safe and was not executed" in text
        assert not trace.exists()
    (tmp_path / name).write_bytes(pickle.dumps({"a": Attack(os.system, f"touch '{trace}'")}, 2))  # no archive around it
    assert f"found {os.name}.system, which" in refusal(read_backbone, tmp_path / name)
    assert not trace.exists()


def test_types_beyond_the_short_list_are_refused_by_name(tensors, tmp_path):
    for value, name in (
        (tmp_path, "pathlib.PosixPath"),
        (np.zeros(3), "_reconstruct"),
        (models.resnet18(weights=None), "torchvision.models.resnet.ResNet"),
    ):
        text = refusal(read_backbone, written(tmp_path / "x.pt", {"state_dict": tensors, "other": value}))
        assert f"{name}, which is not known to be safe" in text


def test_what_is_allowed_is_allowed_here_only(tensors, tmp_path):
    path = written(tmp_path / "swav.ckpt", swav(tensors))
    read_backbone(path)
    with pytest.raises(pickle.UnpicklingError, match=r"GLOBAL (numpy|argparse)"):
        torch.load(path, weights_only=True)


def test_an_object_on_the_list_is_not_made(tensors, tmp_path):
    """Not even the code of a harmless type runs."""
    path = written(tmp_path / "x.ckpt", swav(tensors) | {"conv1.weight": argparse.Namespace(lr=1)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.Namespace, "__setstate__", lambda *_: pytest.fail("made"), raising=False)
        assert_same(read_backbone(path)[0], tensors)


@pytest.mark.parametrize("name", ["x.ckpt", "x.pth.tar", "x.safetensors"])
def test_damaged_files_are_refused(name, tensors, tmp_path):
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        written(path, swav(tensors))
    whole = path.read_bytes()
    changed = [
        b"",
        b"hello world",
        whole[:1000],
        whole[: len(whole) // 2],
        b"\x80\x02}h\x05.",
        b"\x80\x02X\xff\xff\xff\x7f",
    ]
    for content in changed:
        path.write_bytes(content)
        text = refusal(build_backbone, "resnet18", weights=path)
        assert "found a file that is damaged or unsafe" in text
        assert "weights_only" not in text
    assert "fix the path" in refusal(read_backbone, tmp_path / "none.ckpt")
    for other in ("x.tar", "x.h5", "x"):
        (tmp_path / other).touch()
        assert f"or .pth.tar, found {tmp_path / other}; convert them" in refusal(read_backbone, tmp_path / other)
