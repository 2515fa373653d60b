"""Networks under their names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lessismore_transforms.analysis.models import checkpoints_of, common, load_models
from lessismore_transforms.classification.network import load_classifier
from lessismore_transforms.errors import UserError
from lessismore_transforms.weights.backbones import build_backbone, read_metadata, save_backbone


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def test_networks_see_pictures_as_in_their_training(explained: Path, images: torch.Tensor) -> None:
    names = [f"a={explained / 'RUN'}", f"b={explained / 'other.safetensors'}", f"c={explained / 'EVAL/run_00'}"]
    first, second, third = load_models(names)
    with torch.no_grad():
        for model, file, mean in ((first, "RUN/backbone", 0.4), (second, "other", 0.3)):
            backbone = build_backbone("resnet18", weights=explained / f"{file}.safetensors")
            expected = backbone(((images - mean) / 0.25).expand(-1, 3, -1, -1))
            torch.testing.assert_close(model.features(images), expected, rtol=1e-4, atol=1e-5)
        classifier, _ = load_classifier(explained / "EVAL/run_00/model.safetensors")
        torch.testing.assert_close(third.features(images, outputs=True), classifier((images - 0.4) / 0.25))
    torch.testing.assert_close(third.features(images), first.features(images), rtol=1e-4, atol=1e-5)
    assert [model.classes for model in (first, second, third)] == [(), (), ("dark", "bright")]
    assert first.origin | {"weights": ""} == {"backbone": "resnet18", "method": "simclr", "epoch": 9, "weights": ""}
    assert third.origin["mode"] == "finetune"
    assert (common([second, third], "image_size"), common([second, third], "resize")) == (64, "bilinear")


def test_an_untrained_network_is_that_of_the_first_one(explained: Path, images: torch.Tensor) -> None:
    untrained, first = load_models(["untrained=random", f"a={explained / 'RUN'}"])
    assert untrained.origin["backbone"] == "resnet18"
    assert untrained.settings == first.settings
    assert not torch.allclose(untrained.features(images), first.features(images))


def test_a_run_brings_its_checkpoints(explained: Path, images: torch.Tensor) -> None:
    (model,) = load_models([f"a={explained / 'RUN'}"])
    early, end = checkpoints_of(model)
    assert (early.name, end) == ("step_000005", model)
    backbone = build_backbone("resnet18", weights=explained / "RUN/backbones/step_000005.safetensors")
    with torch.no_grad():
        expected = backbone(((images - 0.4) / 0.25).expand(-1, 3, -1, -1))
    torch.testing.assert_close(early.features(images), expected, rtol=1e-4, atol=1e-5)


def test_given_settings_come_first(explained: Path) -> None:
    (model,) = load_models([f"a={explained / 'RUN'}"], image_size=64, mean=None, std=[0.5])
    assert (model.settings["image_size"], model.settings["mean"], model.settings["std"]) == (64, [0.4], [0.5])


MISTAKES: list[tuple[list[str], str]] = [
    ([], "expected one model or more as NAME=FILE, found none"),
    (["RUN"], "expected a model as NAME=FILE, found 'RUN'"),
    (["a={0}/RUN", "a={0}/other.safetensors"], "expected each name of a model once, found 'a' twice"),
    (["a=random"], "expected a model from a file beside the random one, found none"),
    (["a={0}/pictures"], "expected backbone.safetensors or model.safetensors in .*, found neither"),
    (
        ["a={0}/none.safetensors"],
        "expected a file of weights, the folder of a run, or a network .* found none of them in a=.*none.safetensors",
    ),
]


@pytest.mark.parametrize(("models", "sentence"), MISTAKES)
def test_a_mistake_is_one_sentence(explained: Path, models: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_models([model.format(explained) for model in models])


def test_networks_of_other_sizes_are_refused_unless_one_is_given(explained: Path, tmp_path: Path) -> None:
    source = explained / "RUN" / "backbone.safetensors"
    header: dict[str, Any] = read_metadata(source) | {"image_size": 32}
    backbone = build_backbone("resnet18", weights=source)
    save_backbone(tmp_path / "large.safetensors", backbone, header)
    shutil.copy(source, tmp_path / "small.safetensors")
    names = [f"a={tmp_path / 'small.safetensors'}", f"b={tmp_path / 'large.safetensors'}"]
    with pytest.raises(
        UserError, match="expected models of one image_size, found 64 of a and 32 of b: give --image_size"
    ):
        load_models(names)
    assert common(load_models(names, image_size=48), "image_size") == 48
