"""The classification bundles: classes of new pictures, mistakes in one sentence, rules of the zoo, the documents."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ROOT, bundle_environment, bundle_scripts, bundles, run_workflow
from monai.bundle import ConfigWorkflow, ckpt_export
from PIL import Image
from torch.nn import functional as F
from warm_python import warm_run

from lessismore_transforms.classification.network import Classifier, build_classifier, save_classifier
from lessismore_transforms.volumes import find_volumes, read_slices
from lessismore_transforms.weights.backbones import build_backbone, save_backbone

COVID, ORGANS, BRAIN = (
    "covid19_ct_classification",
    "organsmnist_ct_classification",
    "brain_hemorrhage_ct_classification",
)
SIZE, MEAN, STD = 32, 0.2, 0.3
HEADER = {"backbone": "resnet18", "image_size": SIZE, "channels": 1, "resize": "area", "transpose": False}
CLASSES = {COVID: ["COVID", "NonCOVID"], ORGANS: ["spleen", "liver", "heart"], BRAIN: ["a_without", "b_with"]}

pytestmark = pytest.mark.usefixtures("one_thread")
every_bundle = pytest.mark.parametrize("bundle", bundles("classification"))


def config(bundle: str, name: str = "inference.json") -> Path:
    return ROOT / "bundles" / bundle / "configs" / name


def contents(bundle: str, name: str = "inference.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(config(bundle, name).read_text())
    return content


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, and for each bundle a trained classifier that says what it is."""
    folder = tmp_path_factory.mktemp("inference")
    random = np.random.default_rng(0)
    (folder / "pictures" / "below").mkdir(parents=True)
    Image.fromarray(random.integers(0, 256, (40, 90), np.uint8)).save(folder / "pictures" / "grey.png")
    colours = random.integers(0, 256, (70, 50, 3), np.uint8)
    Image.fromarray(colours).save(folder / "pictures" / "below" / "colour, 100%1.png")
    for bundle, classes in CLASSES.items():
        header = {**HEADER, "classes": classes, "mean": [MEAN], "std": [STD]}
        header |= {BRAIN: {"window": "brain"}, ORGANS: {"channels": 3, "mean": [0.1, 0.2, 0.3]}}.get(bundle, {})
        network = build_classifier("resnet18", len(classes), seed=len(bundle))
        save_classifier(folder / f"{bundle}.safetensors", network, header)
    save_backbone(folder / "backbone.safetensors", build_backbone("resnet18", weights="random"), {"method": "moco"})
    torch.save(build_classifier("resnet18", 2).state_dict(), folder / "bare.pt")
    return folder


def expected_probabilities(bundle: str, picture: np.ndarray, mean: Any = MEAN) -> torch.Tensor:
    """What the classifier of a bundle makes of a picture (H, W) or (H, W, 3)."""
    network: Classifier = build_classifier("resnet18", len(CLASSES[bundle]), seed=len(bundle))
    pixels = torch.from_numpy(np.atleast_3d(picture).copy()).permute(2, 0, 1)[None].double() / 255
    small = F.adaptive_avg_pool2d(pixels, SIZE)  # the mean of what a pixel covers
    with torch.no_grad():
        logits = network(((small - torch.tensor(mean).view(1, -1, 1, 1)) / STD).float())
    return torch.softmax(logits, dim=1)[0]


def assert_predictions(bundle: str, output_dir: Path, pictures: dict[str, np.ndarray], mean: Any = MEAN) -> None:
    table = pd.read_csv(output_dir / "predictions.csv", index_col="image_id")
    classes = CLASSES[bundle]
    assert list(table.index) == list(pictures)
    assert list(table.columns) == ["predicted", *(f"p_{number}" for number in range(len(classes)))]
    for name, picture in pictures.items():
        expected = expected_probabilities(bundle, picture, mean)
        np.testing.assert_allclose(table.loc[name].to_numpy()[1:].astype(float), expected, rtol=1e-4)
        assert table.loc[name, "predicted"] == classes[int(expected.argmax())]
    assert json.loads((output_dir / "predictions.json").read_text())["classes"] == classes


def test_a_picture_that_cannot_be_read_is_named_and_the_others_are_classified(place: Path) -> None:
    """In a process of its own, from another folder than the bundle's, with relative paths."""
    shutil.copytree(place / "pictures", place / "some_bad")
    (place / "some_bad" / "below" / "bad.png").write_bytes(b"no picture")
    arguments = f"--dataset_dir some_bad --weights {COVID}.safetensors --output_dir out --batch_size 2 --device cpu"
    line = ["-m", "monai.bundle", "run", "--config_file", str(config(COVID)), *arguments.split()]
    done = warm_run(line, cwd=place, env=bundle_environment())
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "2 predictions in out/predictions.csv (p_0 COVID, p_1 NonCOVID)" in done.stdout
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: 1 of 3 pictures could not be read and have no prediction, first below/bad.png (")
    names = ["below/colour, 100%1.png", "grey.png"]
    grey = {name: np.asarray(Image.open(place / "pictures" / name).convert("L")) for name in names}
    assert_predictions(COVID, place / "out", grey)


def workflow(bundle: str, place: Path, output_dir: str, **overrides: object) -> ConfigWorkflow:
    settings = {
        "bundle_root": str(ROOT / "bundles" / bundle),
        "dataset_dir": str(place / "pictures"),
        "weights": str(place / f"{bundle}.safetensors"),
        "output_dir": str(place / output_dir),
        "device": "cpu",
    }
    given = {name: value for name, value in {**settings, **overrides}.items() if value is not None}
    return ConfigWorkflow(str(config(bundle)), workflow_type="infer", logging_file=False, **given)


@pytest.mark.usefixtures("hook")
def test_colours_are_classified_where_training_had_them(place: Path) -> None:
    run_workflow(workflow(ORGANS, place, "organs"))
    names = ["below/colour, 100%1.png", "grey.png"]
    colours = {name: np.asarray(Image.open(place / "pictures" / name).convert("RGB")) for name in names}
    assert_predictions(ORGANS, place / "organs", colours, mean=[0.1, 0.2, 0.3])


@pytest.mark.usefixtures("hook")
def test_dicom_slices_are_classified_in_the_window_of_the_training(place: Path, small_data: Path) -> None:
    volume = next(volume for volume in find_volumes(small_data).volumes if volume.format == "dicom")
    (place / "dicom").mkdir(exist_ok=True)
    pictures = {}
    for stored, piece in zip(volume.slices[:9:4], list(read_slices(volume, small_data))[:9:4], strict=True):
        name = Path(stored.path).name
        shutil.copyfile(small_data / stored.path, place / "dicom" / name)
        # level 40, width 80
        pictures[name] = np.rint(np.clip(255 * piece.hu.astype(np.float64) / 80, 0, 255)).astype(np.uint8)
    run_workflow(workflow(BRAIN, place, "brain", dataset_dir=str(place / "dicom")))
    assert_predictions(BRAIN, place / "brain", dict(sorted(pictures.items())))
    assert len({picture.tobytes() for picture in pictures.values()}) == 3


MISTAKES = [
    ({"weights": None}, "expected a trained classifier at {root}/models/model.pt, found none: give --weights EVAL/"),
    ({"weights": "{place}/none.safetensors"}, "expected a file of weights at {place}/none.safetensors, found none"),
    ({"weights": "{place}/backbone.safetensors"}, "expected a trained classifier in {place}/backbone.safetensors, fou"),
    ({"weights": "{place}/bare.pt", "backbone": "resnet18"}, "expected the mean and std of the training pictures"),
    ({"classes": ["a", "b", "c"]}, "expected the 122 tensors of a classifier of 3 classes, found 120 of them"),
    ({"dataset_dir": "{place}/empty"}, "expected PNG, JPEG or TIFF files or an output of `reduce` in {place}/empty"),
    ({"channels": 2}, "expected pictures of 1 or 3 channels, found channels 2"),
    ({"window": "bran"}, "expected a window as LEVEL/WIDTH in HU or one of"),
    ({"weigths": "x"}, "the bundle has no setting 'weigths': the closest one is 'weights'"),
]


@pytest.mark.usefixtures("hook")
def test_a_mistake_is_one_sentence(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for overrides, sentence in MISTAKES:
        known = {"place": place, "root": ROOT / "bundles" / COVID}
        given = {name: text.format(**known) if isinstance(text, str) else text for name, text in overrides.items()}
        wrong = workflow(COVID, place, "refused", **given)
        with pytest.raises((RuntimeError, SystemExit)) as stopped:  # MONAI wraps what an expression raises
            run_workflow(wrong)
        if isinstance(stopped.value, RuntimeError):
            with pytest.raises(SystemExit, match="2"):
                sys.excepthook(stopped.type, stopped.value, stopped.tb)  # as Python does at the end of a program
        lines = capsys.readouterr().err.splitlines()
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:], overrides
        assert lines[-1].startswith("error: " + sentence.format(**known)), overrides
        assert not (place / "refused" / "predictions.csv").exists()


@pytest.mark.usefixtures("hook")
def test_a_bare_state_dict_runs_with_what_it_does_not_tell(place: Path) -> None:
    told = {"backbone": "resnet18", "image_size": SIZE, "mean": MEAN, "std": [STD]}
    run_workflow(workflow(COVID, place, "bare", weights=str(place / "bare.pt"), **told))
    assert len(pd.read_csv(place / "bare" / "predictions.csv")) == 2


@every_bundle
@pytest.mark.usefixtures("hook")
def test_properties_of_the_inference(bundle: str, place: Path) -> None:
    infer = workflow(bundle, place, "properties", weights=str(place / f"{COVID}.safetensors"))
    infer.initialize()
    assert infer.check_properties() == []
    for name, kind in (("evaluator", "SupervisedEvaluator"), ("network_def", "Classifier"), ("dataset", "Pictures")):
        assert type(getattr(infer, name)).__name__ == kind


def test_the_inferences_differ_in_the_place_of_the_data_and_in_what_they_tell_apart() -> None:
    for bundle in bundles("classification"):
        content = contents(bundle)
        classes = content["defaults"].pop("classes")
        assert (
            list(contents(bundle, "metadata.json")["network_data_format"]["outputs"]["pred"]["channel_def"].values())
            == classes
        )
        assert content["defaults"].get("window") == ("brain" if bundle == BRAIN else None)
        assert content["defaults"].items() <= contents(bundle, "train.json").items()
    for bundle in set(bundles("classification")) - {BRAIN, "slice_classification"}:
        listing = sys.modules[f"{bundle_scripts(bundle).__name__}.examples"]
        assert contents(bundle)["defaults"]["classes"] == list(listing.CLASSES)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_weights_of_the_bundle_become_torchscript_that_gives_the_same_logits(tmp_path: Path) -> None:
    copied = Path(shutil.copytree(ROOT / "bundles" / ORGANS, tmp_path / ORGANS))
    trained = build_classifier("resnet18", 11, seed=9)
    (copied / "models").mkdir()
    torch.save(trained.state_dict(), copied / "models" / "model.pt")
    ckpt_export(
        net_id="network_def",
        filepath=str(copied / "models" / "model.ts"),
        ckpt_file=str(copied / "models" / "model.pt"),
        meta_file=str(copied / "configs" / "metadata.json"),
        config_file=str(copied / "configs" / "inference.json"),
        bundle_root=str(copied),
        backbone="resnet18",
    )
    scripted = torch.jit.load(copied / "models" / "model.ts").eval()
    images = torch.rand(2, 1, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(scripted(images), trained(images), rtol=1e-5, atol=1e-5)


@every_bundle
def test_commands_of_the_readme_give_settings_that_exist(bundle: str) -> None:
    text = (ROOT / "bundles" / bundle / "docs" / "README.md").read_text()
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    commands = [line for line in blocks.replace("\\\n", " ").splitlines() if "monai.bundle run" in line]
    assert len(commands) > 8
    used = set()
    for command in commands:
        files = re.findall(r"configs/(\w+\.json)", command)
        used.update(files)
        known = set().union(*(contents(bundle, file) for file in files)) | {"config_file"}
        assert known >= set(re.findall(r" --(\w+)", command.partition("monai.bundle run")[2])), command
    assert used == {path.name for path in (ROOT / "bundles" / bundle / "configs").glob("*.json")} - {"metadata.json"}
    assert "python -m lessismore_transforms table " in blocks
