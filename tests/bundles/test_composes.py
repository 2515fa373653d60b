"""`preprocessing` and `postprocessing` of each inference alone: paths to network input, logits to classes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import BUNDLES, run_workflow
from monai.bundle import ConfigWorkflow
from monai.transforms import Compose
from PIL import Image

from lessismore_transforms.classification.network import build_classifier, save_classifier
from lessismore_transforms.classification.preprocessing import Prepare
from lessismore_transforms.pretraining.embed import prepare
from lessismore_transforms.volumes.pictures import read_image
from lessismore_transforms.weights.backbones import build_backbone, save_backbone

SIZE = 48
COLOURED = {"image_size": SIZE, "channels": 3, "mean": [0.2, 0.3, 0.4], "std": [0.3, 0.2, 0.25]}

pytestmark = pytest.mark.usefixtures("one_thread", "hook")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures, an encoder and a classifier of coloured pictures."""
    folder = tmp_path_factory.mktemp("composes")
    random = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for number, shape in enumerate([(40, 90, 3), (70, 50), (48, 48, 3)]):
        Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(folder / "pictures" / f"{number}.png")
    encoder = build_backbone("resnet18", weights="random", seed=5)
    save_backbone(folder / "encoder.safetensors", encoder, {"backbone": "resnet18", "method": "moco", **COLOURED})
    about = {"backbone": "resnet18", "classes": ["a", "b", "c"], "resize": "bilinear", "transpose": True, **COLOURED}
    save_classifier(folder / "classifier.safetensors", build_classifier("resnet18", 3, seed=5), about)
    return folder


def inference(bundle: str, place: Path, **given: Any) -> Any:
    workflow = ConfigWorkflow(
        str(BUNDLES / bundle / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        dataset_dir=str(place / "pictures"),
        output_dir=str(place / bundle),
        device="cpu",
        **given,
    )
    run_workflow(workflow)
    return workflow


def network_inputs(workflow: Any, place: Path) -> list[torch.Tensor]:
    """What the Compose makes of each path, which is what the data set of the inference gives."""
    assert type(workflow.preprocessing) is type(workflow.postprocessing) is Compose
    found = []
    for item, path in zip(workflow.dataset, sorted((place / "pictures").iterdir()), strict=True):
        found.append(workflow.preprocessing({"image": str(path), "image_id": path.name})["image"])
        assert torch.equal(item["image"], found[-1])
    return found


def read(path: Path) -> torch.Tensor:
    return torch.from_numpy(read_image(path, 3).transpose(2, 0, 1).copy())


def test_pictures_are_prepared_exactly_as_for_a_pretrained_encoder(place: Path) -> None:
    workflow = inference("ct_swav_pretraining", place, pretrained=str(place / "encoder.safetensors"))
    for image, path in zip(network_inputs(workflow, place), sorted((place / "pictures").iterdir()), strict=True):
        expected = prepare(read(path)[None], size=SIZE, mean=COLOURED["mean"], std=COLOURED["std"])[0]
        assert torch.equal(image, expected)
    embedding = torch.rand(5)
    assert torch.equal(workflow.postprocessing({"pred": embedding})["pred"], embedding)


def test_pictures_are_prepared_exactly_as_in_the_training_of_a_classifier(place: Path) -> None:
    workflow = inference("slice_classification", place, weights=str(place / "classifier.safetensors"))
    as_trained = Prepare(SIZE, COLOURED["mean"], COLOURED["std"], resize="bilinear", transpose=True)
    images = network_inputs(workflow, place)
    for image, path in zip(images, sorted((place / "pictures").iterdir()), strict=True):
        assert torch.equal(image, as_trained({"image": read(path)})["image"])
    with (place / "slice_classification" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with torch.no_grad():
        logits = workflow.parser.get_parsed_content("network")(torch.stack(images))
    for row, pred in zip(rows, logits, strict=True):
        found = workflow.postprocessing({"pred": pred})
        assert found["predicted"] == row["predicted"]
        np.testing.assert_allclose(found["pred"], [float(row[f"p_{number}"]) for number in range(3)], rtol=1e-5)


def test_of_equal_logits_the_first_class_is_named(place: Path) -> None:
    workflow = inference("slice_classification", place, weights=str(place / "classifier.safetensors"))
    one = workflow.postprocessing({"pred": torch.tensor([0.0, np.log(2), np.log(2)])})
    assert one["predicted"] == "b"
    torch.testing.assert_close(one["pred"], torch.tensor([0.2, 0.4, 0.4], dtype=torch.float64), rtol=1e-7, atol=0)
    assert workflow.postprocessing({"pred": torch.eye(3)})["predicted"] == ["a", "b", "c"]
