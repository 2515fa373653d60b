"""Trained classifiers filled strictly, pictures prepared as in training, classes and probabilities as should be."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from torch import nn

from lessismore_transforms import __version__
from lessismore_transforms.classification.network import build_classifier, save_classifier
from lessismore_transforms.classification.predict import PredictionSaver, describe, load_trained, preparation
from lessismore_transforms.weights.backbones import build_backbone, save_backbone, weights_id

pytestmark = pytest.mark.usefixtures("one_thread")
HEADER = {"backbone": "resnet18", "classes": ["a", "b", "c"], "image_size": 32, "mean": [0.25], "std": [0.5]}
DEFAULTS = {"backbone": "resnet50", "classes": ["x", "y"], "mean": None, "std": None, "resize": "area"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    save_classifier(path, build_classifier("resnet18", 3, seed=3), HEADER)
    return path


def test_the_header_wins_over_the_defaults_and_a_bare_state_dict_has_them_alone(model: Path, tmp_path: Path) -> None:
    assert describe(model, DEFAULTS) == {**DEFAULTS, **HEADER, "version": __version__}
    assert describe(tmp_path / "model.pt", DEFAULTS) == DEFAULTS
    with pytest.raises(ValueError, match=r"expected a file of weights at .*none\.safetensors, found none"):
        describe(tmp_path / "none.safetensors", DEFAULTS)
    save_backbone(tmp_path / "backbone.safetensors", build_backbone("resnet18", weights="random"), {"method": "moco"})
    with pytest.raises(ValueError, match=r"found a file that names no classes: give --weights EVAL/run_00/model.safe"):
        describe(tmp_path / "backbone.safetensors", DEFAULTS)


def test_trained_weights_fill_the_network_strictly(model: Path, tmp_path: Path) -> None:
    trained = build_classifier("resnet18", 3, seed=3)
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = trained(images)
        for weights in (model, tmp_path / "model.pt"):
            loaded = load_trained(build_classifier("resnet18", 3), weights, "cpu")
            torch.testing.assert_close(loaded(images), expected, rtol=1e-4, atol=1e-5)
            assert not loaded.training
    with pytest.raises(ValueError, match=r"expected a trained classifier at .*nowhere.pt, found none: give --weights"):
        load_trained(trained, tmp_path / "nowhere.pt", "cpu")
    with pytest.raises(
        ValueError, match=r"found none: give --weights .*, or name the bundle's folder by --bundle_root$"
    ):
        load_trained(trained, "models/model.pt", "cpu")  # the default, from another folder than the bundle's
    with pytest.raises(ValueError, match=r"tensors of a classifier of 2 classes, found 120 .* \(3, 512\) instead of"):
        load_trained(build_classifier("resnet18", 2), model, "cpu")


def test_pictures_are_prepared_as_in_training_or_refused() -> None:
    image = torch.tensor([[0, 51, 102], [153, 204, 255]], dtype=torch.uint8)[None]  # (1, 2, 3)
    prepare = preparation(2, 0.2, [0.4], "area", transpose=True)
    # transposed (3, 2): 0 153 / 51 204 / 102 255; each of two rows is the mean of two, the middle one counts twice
    expected = torch.tensor([[[0.1, 0.7], [0.3, 0.9]]])
    torch.testing.assert_close(prepare({"image": image, "image_id": "a"})["image"], (expected - 0.2) / 0.4)
    for mean, std in ((None, [0.5]), ([0.5], None)):
        with pytest.raises(ValueError, match="expected the mean and std of the training pictures"):
            preparation(2, mean, std, "area", transpose=False)


LOGITS = torch.tensor([[0.0, np.log(3)], [2.0, 2.0], [9.0, 0.0], [100.0, -100.0]])
NAMES = ["b/plain.png", 'with "quotes", commas.png', "bad.png", "c.png"]
ERRORS = ["", "", "cannot be read", ""]


def run_saver(saver: PredictionSaver) -> None:
    """An evaluator whose network gives the logits back, in batches of two."""
    items = [
        {"image": row, "image_id": name, "error": error} for row, name, error in zip(LOGITS, NAMES, ERRORS, strict=True)
    ]
    SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(items, batch_size=2),
        network=nn.Identity(),
        val_handlers=[saver],
        decollate=False,
    ).run()


def test_predictions_have_hand_made_values(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saver = PredictionSaver(tmp_path / "new" / "folder", ["no, none", "yes"], model)
    run_saver(saver)
    with (saver.output_dir / "predictions.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["image_id", "predicted", "p_0", "p_1"]
    assert [row[:2] for row in rows] == [[NAMES[0], "yes"], [NAMES[1], "no, none"], [NAMES[3], "no, none"]]
    np.testing.assert_allclose(
        np.array([row[2:] for row in rows], float), [[0.25, 0.75], [0.5, 0.5], [1, 0]], atol=1e-8
    )
    assert json.loads((saver.output_dir / "predictions.json").read_text()) == {
        "format": 1,
        "version": __version__,
        "classes": ["no, none", "yes"],
        "weights": weights_id(model),
    }
    assert capsys.readouterr().out.endswith("predictions.csv (p_0 no, none, p_1 yes)\n")
    with pytest.raises(ValueError, match=r"1 of 4 pictures could not be read and have no prediction, first bad\.png"):
        saver.check()


def test_the_predictions_of_an_evaluation_are_not_overwritten(model: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").touch()
    with pytest.raises(ValueError, match=r"found the run of an evaluation in .*: name another output_dir"):
        PredictionSaver(tmp_path, ["a", "b", "c"], model)
