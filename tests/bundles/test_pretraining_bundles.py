"""The pre-training bundles: embeddings of pictures, mistakes in one sentence, the model zoo's rules."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ROOT, bundle_environment, bundles, run_workflow
from monai.bundle import ConfigWorkflow, ckpt_export
from PIL import Image
from safetensors.torch import load_file
from warm_python import warm_run

from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.weights.backbones import build_backbone, save_backbone

BUNDLES = bundles("pretraining")
SIZE, MEAN, STD = 64, 0.2, 0.3

every_bundle = pytest.mark.parametrize("bundle", BUNDLES)


def config(bundle: str, name: str = "inference.json") -> Path:
    return ROOT / "bundles" / bundle / "configs" / name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, and weights that say what they are."""
    folder = tmp_path_factory.mktemp("inference")
    random = np.random.default_rng(0)
    (folder / "pictures" / "below").mkdir(parents=True)
    Image.fromarray(random.integers(0, 256, (40, 90), np.uint8)).save(folder / "pictures" / "grey.png")
    grey = random.integers(0, 256, (70, 50), np.uint8)
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(folder / "pictures" / "below" / "colour, one.png")
    Image.fromarray(random.integers(0, 256, (64, 64), np.uint8)).save(folder / "pictures" / "same.png")
    metadata = {"method": "swav", "backbone": "resnet18", "image_size": SIZE, "mean": [MEAN], "std": [STD], "epoch": 1}
    save_backbone(folder / "r18.safetensors", build_backbone("resnet18", weights="random", seed=5), metadata)
    return folder


def expected_embedding(picture: np.ndarray, weights: Path) -> np.ndarray:
    """What a resnet18 makes of a picture (H, W) or (H, W, 3) that Pillow resized."""
    planes = np.atleast_3d(picture).astype(np.float32).transpose(2, 0, 1)
    floats = [Image.fromarray(plane, mode="F").resize((SIZE, SIZE), Image.Resampling.BILINEAR) for plane in planes]
    image = torch.from_numpy((np.stack(floats) / 255 - MEAN) / STD)
    with torch.no_grad():
        embedding: np.ndarray = build_backbone("resnet18", weights=weights)(image.expand(3, -1, -1)[None])[0].numpy()
    return embedding


def assert_embeddings(output_dir: Path, pictures: dict[str, np.ndarray], weights: Path) -> None:
    table = pd.read_csv(output_dir / "embeddings.csv", index_col="image_id", dtype={"image_id": str})
    assert list(table.index) == list(pictures)
    assert list(table.columns) == [f"e_{number}" for number in range(512)]
    for name, picture in pictures.items():
        expected = expected_embedding(picture, weights)
        np.testing.assert_allclose(table.loc[name], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def grey_pictures(folder: Path) -> dict[str, np.ndarray]:
    names = ["below/colour, one.png", "grey.png", "same.png"]
    return {name: np.asarray(Image.open(folder / name).convert("RGB"))[..., 0] for name in names}


def command(bundle: str, *overrides: object) -> list[str]:
    """For a process of its own, from another folder than the bundle's, with relative paths."""
    return ["-m", "monai.bundle", "run", "--config_file", str(config(bundle)), *map(str, overrides)]


@pytest.mark.parametrize("bundle", BUNDLES[:1])  # test_template holds that all have the same inference.json
def test_one_embedding_per_picture(bundle: str, place: Path) -> None:
    arguments = f"--dataset_dir pictures --pretrained r18.safetensors --output_dir {bundle}/out --device cpu"
    line = [sys.executable, *command(bundle, *arguments.split())]
    done = subprocess.run(
        line, cwd=place, env=bundle_environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"3 embeddings of 512 numbers in {bundle}/out" in done.stdout
    assert "Traceback" not in done.stderr
    assert_embeddings(place / bundle / "out", grey_pictures(place / "pictures"), place / "r18.safetensors")


def test_a_picture_that_cannot_be_read_is_named_and_the_others_go_on(place: Path) -> None:
    shutil.copytree(place / "pictures", place / "some_bad")
    (place / "some_bad" / "h_bad.png").write_bytes(b"no picture")
    (place / "some_bad" / "below" / "bad.jpg").touch()
    arguments = "--dataset_dir some_bad --pretrained r18.safetensors --output_dir bad_out --batch_size 2 --format npy"
    line = command("ct_moco_pretraining", *arguments.split(), "--workers", 1)
    done = warm_run(line, cwd=place, env=bundle_environment())
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("error: 2 of 5 pictures could not be read and have no embedding, first below/bad.jpg (")
    assert [line.split(" - ")[-1].split(" could")[0] for line in lines if "could not be read: " in line] == [
        "below/bad.jpg",
        "h_bad.png",
    ]
    pictures = grey_pictures(place / "pictures")
    assert pd.read_csv(place / "bad_out" / "embeddings.csv")["image_id"].tolist() == list(pictures)
    array = np.load(place / "bad_out" / "embeddings.npy")
    for row, picture in zip(array, pictures.values(), strict=True):
        expected = expected_embedding(picture, place / "r18.safetensors")
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def workflow(bundle: str, place: Path, output_dir: str, **overrides: object) -> ConfigWorkflow:
    settings = {
        "bundle_root": str(ROOT / "bundles" / bundle),
        "dataset_dir": str(place / "pictures"),
        "pretrained": str(place / "r18.safetensors"),
        "output_dir": str(place / output_dir),
        "device": "cpu",
    }
    return ConfigWorkflow(str(config(bundle)), workflow_type="infer", logging_file=False, **{**settings, **overrides})


@pytest.mark.usefixtures("hook")
def test_slices_of_an_output_are_embedded_by_slice_id(small_data: Path, place: Path) -> None:
    reduce_dataset(small_data, place / "reduced", Settings(Target.of(threshold=20)), workers=0)
    slices = SliceSelectionDataset(place / "reduced")
    good = workflow("ct_swav_pretraining", place, "sliced", dataset_dir=str(place / "reduced"))
    run_workflow(good)
    pictures = {item["slice_id"]: item["image"][0] for item in map(slices.__getitem__, range(len(slices)))}
    assert len(pictures) > 3
    assert_embeddings(place / "sliced", pictures, place / "r18.safetensors")


@pytest.mark.usefixtures("hook")
def test_weights_of_coloured_pictures_see_colour(place: Path) -> None:
    colour = np.random.default_rng(1).integers(0, 256, (50, 60, 3), np.uint8)
    (place / "coloured").mkdir()
    Image.fromarray(colour).save(place / "coloured" / "a.tif")
    backbone = build_backbone("resnet18", weights=place / "r18.safetensors")
    header = {"backbone": "resnet18", "image_size": SIZE, "mean": [MEAN], "std": [STD], "channels": 3}
    save_backbone(place / "coloured.safetensors", backbone, header)
    given = {"dataset_dir": str(place / "coloured"), "pretrained": str(place / "coloured.safetensors")}
    run_workflow(workflow("ct_byol_pretraining", place, "in_colour", **given))
    assert_embeddings(place / "in_colour", {"a.tif": colour}, place / "coloured.safetensors")


MISTAKES = [
    ({"pretrained": "{place}/none.pt"}, "expected a file of weights at {place}/none.pt, found none; fix the path"),
    (
        {"pretrained": "models/model.pt"},
        "expected a file of weights at models/model.pt, found none; fix the path, or name",
    ),
    ({"pretrained": "{place}/none.safetensors"}, "expected a file of weights at {place}/none.safetensors, found none"),
    ({"backbone": "resnet34"}, "expected the 216 tensors of resnet34 (pooled), found 120 of them in {place}/r18"),
    ({"backbone": "resnet19"}, "expected a classification model of torchvision, found 'resnet19'; similar names are"),
    ({"dataset_dir": "{place}/empty"}, "expected PNG, JPEG, TIFF or DICOM files or an output of `reduce` in {place}/"),
    ({"batchsize": 2}, "the bundle has no setting 'batchsize': the closest one is 'batch_size'"),
    ({"device": "gpu"}, "expected a device that this machine has, found 'gpu'"),
    ({"mean": "dark"}, "expected mean to be a list of one number or three, such as [0.18], found 'dark': take"),
    ({"image_size": 0}, "expected an image size of 1 or more pixels, found 0"),
    ({"format": "xlsx"}, "expected a format out of csv, npy, found 'xlsx'"),
]


@pytest.mark.usefixtures("hook")
@pytest.mark.parametrize(("overrides", "sentence"), MISTAKES, ids=[next(iter(mistake)) for mistake, _ in MISTAKES])
def test_a_mistake_is_one_sentence(
    overrides: dict[str, object], sentence: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {name: value.format(place=place) if isinstance(value, str) else value for name, value in overrides.items()}
    wrong = workflow("ct_spark_pretraining", place, "refused", **given)
    with pytest.raises((RuntimeError, SystemExit)) as stopped:  # MONAI wraps what an expression raises
        run_workflow(wrong)
    if isinstance(stopped.value, RuntimeError):
        with pytest.raises(SystemExit, match="2"):
            sys.excepthook(stopped.type, stopped.value, stopped.tb)  # as Python does at the end of a program
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert lines[-1].startswith("error: " + sentence.format(place=place))
    assert "Traceback" not in "\n".join(lines)
    assert not (place / "refused" / "embeddings.csv").exists()


@every_bundle
@pytest.mark.usefixtures("hook")
def test_properties_of_the_inference(bundle: str, place: Path) -> None:
    infer = workflow(bundle, place, "properties")
    infer.initialize()
    assert infer.check_properties() == []
    for name, kind in (("evaluator", "SupervisedEvaluator"), ("network_def", "ResNet"), ("dataset", "Pictures")):
        assert type(getattr(infer, name)).__name__ == kind


def test_the_inferences_differ_in_the_place_of_the_data_alone() -> None:
    contents = [json.loads(config(bundle).read_text()) for bundle in BUNDLES]
    for bundle, content in zip(BUNDLES, contents, strict=True):
        assert content.pop("dataset_dir") == f"/workspace/data/{bundle}"
    assert all(content == contents[0] for content in contents)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_weights_of_the_bundle_become_torchscript_that_gives_the_same_features(tmp_path: Path) -> None:
    bundle = "ct_swav_pretraining"
    copied = Path(shutil.copytree(ROOT / "bundles" / bundle, tmp_path / bundle))
    trained = build_backbone("resnet50", weights="random", seed=9)
    save_backbone(tmp_path / "backbone.safetensors", trained, {"mean": [0.5]})
    (copied / "models").mkdir()
    torch.save(load_file(tmp_path / "backbone.safetensors"), copied / "models" / "model.pt")
    ckpt_export(
        net_id="network_def",
        filepath=str(copied / "models" / "model.ts"),
        ckpt_file=str(copied / "models" / "model.pt"),
        meta_file=str(copied / "configs" / "metadata.json"),
        config_file=str(copied / "configs" / "inference.json"),
        bundle_root=str(copied),
    )
    scripted = torch.jit.load(copied / "models" / "model.ts").eval()
    images = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = trained(images)
        assert expected.shape == (2, 2048)
        torch.testing.assert_close(scripted(images), expected, rtol=1e-5, atol=1e-5)
