"""The bundles of own slices, BreaKHis, colorectal histology and pneumonia X-rays, on made pictures."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from helpers import BUNDLES, bundle_scripts, in_bundle, tiny_backbone, workflows
from PIL import Image

from lessismore_transforms.classification.evaluation import SETTLED
from lessismore_transforms.classification.examples import Listing
from lessismore_transforms.classification.network import load_classifier
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.classification.protocol import unit_of
from lessismore_transforms.errors import UserError
from lessismore_transforms.phantom import write_demo_task
from lessismore_transforms.phantom.tasks import TISSUES
from lessismore_transforms.reduced.patients import hash_patient, load_key
from lessismore_transforms.weights.backbones import build_backbone, save_backbone

BREAKHIS, COLORECTAL, XRAYS, SLICES = (
    f"{name}_classification" for name in ("breakhis", "colorectal", "pneumonia_xray", "slice")
)
NETWORK = tiny_backbone()
SMALL: dict[str, Any] = {"backbone": NETWORK, "image_size": 32, "workers": 0, "bootstrap": 20, "device": "cpu"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made data sets, and weights of an encoder."""
    folder = tmp_path_factory.mktemp("tasks")
    for bundle, task in ((BREAKHIS, "breakhis"), (COLORECTAL, "colorectal"), (XRAYS, "pneumonia")):
        write_demo_task(folder / bundle, task, patients=8, size=48)
    save_backbone(folder / "backbone.safetensors", build_backbone(NETWORK, weights="random", seed=5), {})
    return folder


def listed(bundle: str, folder: Path, **options: Any) -> Listing:
    found: Listing = bundle_scripts(bundle).listing(folder, **options)
    return found


def counts(listing: Listing) -> Counter[tuple[str, str]]:
    return Counter((example.split, listing.classes[example.label]) for example in listing.examples)


def crossing(listing: Listing) -> set[str]:
    """The units that are in more than one split."""
    splits = defaultdict(set)
    for example in listing.examples:
        splits[unit_of(example)].add(example.split)
    return {unit for unit, found in splits.items() if len(found) > 1}


def draw(path: Path, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (3, 2)).save(path)
    return path


# Listings.


def test_slides_of_breakhis_are_patients(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("SOB_B_A-14-22549AB-400-001", "SOB_B_A-14-22549CD-400-002", "SOB_B_TA-14-22549-40-003",
             "SOB_B_F-13-22549-400-001", "SOB_B_F-14-5-400-001", "SOB_M_DC-14-1-400-001", "SOB_M_LC-14-2-400-001",
             "SOB_M_LC-14-3-400-001", "figure")  # fmt: skip
    for name in names:
        draw(tmp_path / f"{name}.png")
    with caplog.at_level(logging.WARNING):
        listing = listed(BREAKHIS, tmp_path, folds=3, magnification=400)
    assert caplog.messages == ["1 picture is not named as in BreaKHis and is left out"]
    key = load_key()
    old, new = hash_patient("13-22549", key), hash_patient("14-22549", key)
    assert [(e.image_id, e.label, e.patient) for e in listing.examples[:3]] == [
        (f"SOB_B_A-{new}AB-400-001.png", 0, new),
        (f"SOB_B_A-{new}CD-400-002.png", 0, new),
        (f"SOB_B_F-{old}-400-001.png", 0, old),
    ]
    assert [e.label for e in listing.examples[3:]] == [0, 1, 1, 1]
    everything = listed(BREAKHIS, tmp_path, folds=3)
    assert everything.examples == listed(BREAKHIS, tmp_path, folds=3, magnification="all").examples
    assert len(everything.examples) == 8
    assert not crossing(listing)
    assert listing.read(listing.examples[0], 3).shape == (2, 3, 3)
    with pytest.raises(UserError, match="expected a magnification of 40, 100, 200, 400, all, found 50"):
        listed(BREAKHIS, tmp_path, magnification=50)
    with pytest.raises(UserError, match=r"014.png, magnified 200 times, below .*, found none among 9 pictures: name"):
        listed(BREAKHIS, tmp_path, magnification=200)
    draw(tmp_path / "benign" / "SOB_M_DC-14-3-400-001.png")
    with pytest.raises(UserError, match="expected a picture of malignant, as its name says, found benign/SOB_M_DC"):
        listed(BREAKHIS, tmp_path)


def test_the_folders_of_breakhis400x_are_an_official_split(data: Path) -> None:
    official = listed(BREAKHIS, data / BREAKHIS, magnification=400, protocol="official", validation=0.2)
    tests = {path.name for path in (data / BREAKHIS / "test").rglob("*-400-*.png")}
    assert counts(official)["test", "benign"] + counts(official)["test", "malignant"] == len(tests) == 4
    assert counts(official) == {
        (split, name): n for split, n in (("train", 4), ("val", 2), ("test", 2)) for name in ("benign", "malignant")
    }
    assert not crossing(official)
    single = listed(BREAKHIS, data / BREAKHIS, magnification=400, protocol="official", validation=0.2, grouped=False)
    assert crossing(single)
    assert {e.image_id for e in single.examples if e.split == "test"} == {
        e.image_id for e in official.examples if e.split == "test"
    }


def test_tiles_of_a_slide_or_of_a_region_stay_together(tmp_path: Path, data: Path) -> None:
    slides = listed(COLORECTAL, data / COLORECTAL, folds=4)
    assert slides.classes == tuple(TISSUES)
    assert counts(slides) == {
        (split, name): n for split, n in (("train", 5), ("val", 1), ("test", 2)) for name in TISSUES
    }
    assert not crossing(slides)
    first = hash_patient("CRC-Prim-HE-01", load_key())
    assert (slides.examples[0].image_id, slides.examples[0].patient) == (
        f"01_TUMOR/1000_{first}_000.tif_Row_1_Col_151.tif", first,
    )  # fmt: skip
    regions = listed(COLORECTAL, data / COLORECTAL, unit="region", folds=4)
    assert len({e.source for e in regions.examples}) == 64
    assert {e.patient for e in regions.examples} == {""}
    with pytest.raises(UserError, match="expected a unit out of slide, region, found 'tile'"):
        listed(COLORECTAL, data / COLORECTAL, unit="tile")
    with pytest.raises(UserError, match=r"at least 9 patients .* of the class 01_TUMOR for 9 folds, found 8"):
        listed(COLORECTAL, data / COLORECTAL, folds=9)
    copied = Path(shutil.copytree(data / COLORECTAL, tmp_path / "copied"))
    draw(copied / "01_TUMOR" / "mine.png")
    with pytest.raises(UserError, match=r"expected a name such as 10009_CRC.*, found 01_TUMOR/mine.png: rename it"):
        listed(COLORECTAL, copied)
    shutil.rmtree(copied / "07_ADIPOSE")
    (copied / "01_TUMOR" / "mine.png").unlink()
    with pytest.raises(UserError, match=r"for each of 8 classes below .*, found none in 07_ADIPOSE: unpack"):
        listed(COLORECTAL, copied)


def test_names_of_tiles_without_a_region(tmp_path: Path) -> None:
    for number, name in enumerate(TISSUES):
        for slide in ("06", "07", "10"):
            draw(tmp_path / name / f"1C4{number}_CRC-Prim-HE-{slide}.tif_Row_451_Col_301.tif")
    assert len({e.patient for e in listed(COLORECTAL, tmp_path, folds=3).examples}) == 3


def test_a_patient_of_x_rays_is_a_part_a_person_and_a_kind(tmp_path: Path) -> None:
    names = ("train/PNEUMONIA/person1_bacteria_1.jpeg", "train/PNEUMONIA/person1_bacteria_2.jpeg",
             "train/PNEUMONIA/person1_virus_6.jpeg", "val/PNEUMONIA/person2_virus_9.jpeg",
             "test/PNEUMONIA/person1_virus_6.jpeg", "train/NORMAL/IM-0115-0001.jpeg", "val/NORMAL/IM-0115-0002.jpeg",
             "train/NORMAL/NORMAL2-IM-0115-0001-0002.jpeg", "train/NORMAL/IM-0116-0001.jpeg",
             "test/NORMAL/IM-0115-0001.jpeg")  # fmt: skip
    for name in names:
        draw(tmp_path / "chest_xray" / name, "L")
    listing = listed(XRAYS, tmp_path / "chest_xray")
    groups: dict[str, list[str]] = defaultdict(list)
    for example, name in zip(listing.examples, sorted(names), strict=True):
        groups[example.patient].append(name)
        assert "person" not in example.image_id
        assert "IM-" not in example.image_id.replace("NORMAL2-IM-", "IM-")
        assert (example.split == "test") == name.startswith("test/")
    together = sorted(found for found in groups.values() if len(found) > 1)
    assert together == [[names[5], names[6]], [names[0], names[1]]]
    assert not crossing(listing)
    draw(tmp_path / "chest_xray" / "train" / "NORMAL" / "person1_virus_1.jpeg")
    with pytest.raises(UserError, match=r"such as IM-0115-0001.jpeg in NORMAL and .*, found train/NORMAL/person1"):
        listed(XRAYS, tmp_path / "chest_xray")
    shutil.rmtree(tmp_path / "chest_xray" / "test")
    (tmp_path / "chest_xray" / "train" / "NORMAL" / "person1_virus_1.jpeg").unlink()
    with pytest.raises(UserError, match=r"below .*, found none in test/NORMAL, test/PNEUMONIA: unpack"):
        listed(XRAYS, tmp_path / "chest_xray")


def test_real_x_rays(real_data: Path) -> None:
    if not (real_data / "pneumonia_cxr").is_dir():
        pytest.skip("no chest X-rays among the real images")
    listing = listed(XRAYS, real_data / "pneumonia_cxr")
    assert counts(listing) == {
        (split, name): n
        for split, n in (("train", 540), ("val", 60), ("test", 150))
        for name in ("NORMAL", "PNEUMONIA")
    }
    assert len({e.patient for e in listing.examples}) == 1342
    assert not crossing(listing)


def test_real_breakhis(real_data: Path) -> None:
    if not (real_data / "breakhis_few").is_dir():
        pytest.skip("no BreaKHis among the real images")
    listing = listed(BREAKHIS, real_data / "breakhis_few", magnification="all", folds=2)
    assert Counter(e.label for e in listing.examples) == {0: 10, 1: 8}
    assert len({e.patient for e in listing.examples}) == 12
    assert not crossing(listing)
    assert listing.read(listing.examples[0], 3).shape == (460, 700, 3)


def test_real_contrast_from_dicom(real_data: Path, tmp_path: Path) -> None:
    """Labels in the names of files, patients in the headers, folds by patient."""
    folder = real_data / "siim_ct_contrast"
    if not folder.is_dir():
        pytest.skip("no SIIM slices among the real images")
    rows = [(path.name, path.name.partition("CONTRAST_")[2][0]) for path in sorted(folder.glob("*.dcm"))]
    table = tmp_path / "contrast.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "contrast"), *rows])
    for fold in range(5):
        listing = listed(SLICES, folder, labels=str(table), window="lung+chest+bone", fold=fold)
        assert listing.classes == ("no contrast", "contrast")
        assert counts(listing) == {
            (split, name): n for split, n in (("train", 36), ("val", 4), ("test", 10)) for name in listing.classes
        }
        assert len({e.patient for e in listing.examples}) == 54
        assert not crossing(listing)
    assert listing.read(listing.examples[0], 3).shape == (512, 512, 3)


def test_own_slices_without_patients_are_listed_in_three_windows(tmp_path: Path, small_data: Path) -> None:
    """Near-duplicates are looked for in the channels of the training, which its configuration hands over."""
    source = pydicom.dcmread(sorted(small_data.rglob("*.dcm"))[5])
    source.PatientID = ""
    lines = ["path,label,split"]
    for split in ("train", "val", "test"):
        for label in range(2):
            lines.append(f"{split}_{label}.dcm,{label},{split}")
            source.save_as(tmp_path / f"{split}_{label}.dcm")
    (tmp_path / "splits.csv").write_text("\n".join(lines))
    own = {"window": "lung+chest+bone", "channels": 3}
    found = listed(SLICES, tmp_path, **own)
    assert found.official
    assert {e.source for e in found.examples} == {"test_0.dcm"}  # all are equal
    with pytest.raises(UserError, match="expected no repeat for the official split of Own, found 1: leave it out"):
        listed(SLICES, tmp_path, **own, repeat=1)
    listing = json.loads((BUNDLES / SLICES / "configs" / "train.json").read_text())["listing"]
    assert (listing["channels"], listing["repeat"]) == ("@channels", "@repeat")


# Runs.


def metrics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return content


def configs(bundle: str, *names: str) -> list[str]:
    return [str(BUNDLES / bundle / "configs" / f"{name}.json") for name in names]


@pytest.mark.parametrize("bundle", [BREAKHIS, COLORECTAL, XRAYS])
def test_a_bundle_trains_as_released_and_tells_the_same_again(tmp_path: Path, data: Path, bundle: str) -> None:
    """The defaults only have MONAI's properties checked; the released head, rate and pictures one by one are run."""
    given = {"dataset_dir": str(data / bundle), "pretrained": str(data / "backbone.safetensors"), **SMALL}
    given |= {} if bundle == XRAYS else {"folds": 4}
    released = given | {"output_dir": "released", "max_epochs": 1, "log_interval": 1, "batch_size": 8}
    free = {name: value for name, value in given.items() if name not in SETTLED and name != "folds"}
    weights = "released/run_00/model.safetensors"
    code = workflows(
        (configs(bundle, "train"), given),
        (configs(bundle, "train", "as_released"), released),
        (configs(bundle, "train", "evaluate"), free | {"output_dir": "again", "weights": weights}),
        (
            configs(bundle, "inference"),
            {"dataset_dir": str(data / bundle), "output_dir": "pred", "weights": weights, "device": "cpu"},
        ),
        (configs(bundle, "train"), given | {"mode": "linear", "head": "mlp"}),
    )
    code += """
for workflow in workflows[:2]:
    workflow.initialize()
    assert workflow.check_properties() == [], workflow.check_properties()
print("SAID" + json.dumps([run(workflow) for workflow in workflows[1:]]))
"""
    said = json.loads(in_bundle(tmp_path, bundle, code).partition("SAID")[2].splitlines()[0])
    errors = [[line for line in text.splitlines() if line.startswith("error: ")] for text in said]
    assert errors[:3] == [[], [], []]
    assert "error: expected the head linear for a logistic regression, found mlp: leave it out, or give" in errors[3][0]
    first, again = (tmp_path / name / "run_00" for name in ("released", "again"))
    assert metrics(first)["settings"]["head"] == "mlp"
    assert metrics(first)["settings"]["grouped"] is False
    assert (first / "predictions.csv").read_bytes() == (again / "predictions.csv").read_bytes()
    network, header = load_classifier(first / "model.safetensors")
    assert [type(layer).__name__ for layer in network.classifier] == ["Linear", "BatchNorm1d", "LeakyReLU", "Linear"]
    assert (header["head"], header["split_seed"], header["channels"]) == ("mlp", 16, 3)
    assert header["mean"] == ([0.5] if bundle == XRAYS else [0.485, 0.456, 0.406])
    before = build_backbone(NETWORK, weights=data / "backbone.safetensors").state_dict()
    assert all(torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items())
    log = [json.loads(line) for line in (first / "log.jsonl").read_text().splitlines()]
    assert {line["learning_rate"] for line in log if "learning_rate" in line} == {1.0}
    told = pd.read_csv(tmp_path / "pred" / "predictions.csv")
    assert len(told) == sum(path.is_file() for path in (data / bundle).rglob("*.*"))


def test_own_slices_in_three_windows(tmp_path: Path, small_data: Path, data: Path) -> None:
    """DICOM of twelve patients with a table; a network scored again and used on new slices."""
    source = pydicom.dcmread(sorted(small_data.rglob("*.dcm"))[5])
    random, lines = np.random.default_rng(0), ["path,dense,group"]
    for number in range(24):
        pixels = source.pixel_array + 300 * (number % 2) + random.integers(0, 50, source.pixel_array.shape)
        source.PixelData = pixels.astype(source.pixel_array.dtype).tobytes()
        source.PatientID = f"ID{number // 2}"
        (tmp_path / "slices").mkdir(exist_ok=True)
        source.save_as(tmp_path / "slices" / f"{number:02}.dcm")
        lines.append(f"{number:02}.dcm,{number % 2},case{number // 4}")
    (tmp_path / "dense.csv").write_text("\n".join(lines))
    own = {"labels": str(tmp_path / "dense.csv"), "dataset_dir": str(tmp_path / "slices"), "fold": 1, "folds": 4}
    own |= {"window": "lung+chest+bone", "task": "Dense"}
    given = own | SMALL | {"mode": "linear", "pretrained": str(data / "backbone.safetensors"), "batch_size": 8}
    free = {name: own[name] for name in ("labels", "dataset_dir")} | {"workers": 0, "bootstrap": 20, "device": "cpu"}
    weights = "eval/run_01/model.safetensors"
    new = {"dataset_dir": own["dataset_dir"], "output_dir": "pred", "weights": weights, "device": "cpu"}
    code = workflows(
        (configs(SLICES, "train"), given | {"output_dir": "eval", "channels": 3}),
        (configs(SLICES, "train", "evaluate"), free | {"output_dir": "again", "weights": weights}),
        (configs(SLICES, "inference"), new),
        (configs(SLICES, "train"), given | {"output_dir": "grey"}),
        (configs(SLICES, "train"), given | {"channels": 3, "protocol": "official", "output_dir": "x"}),
    )
    code += """
workflows[0].initialize()
assert workflows[0].check_properties() == [], workflows[0].check_properties()
print("SAID" + json.dumps([run(workflow) for workflow in workflows]))
"""
    said = json.loads(in_bundle(tmp_path, SLICES, code).partition("SAID")[2].splitlines()[0])
    errors = [[line for line in text.splitlines() if line.startswith("error: ")] for text in said]
    assert errors[:3] == [[], [], []]
    assert "expected 3 channels for the 3 windows lung+chest+bone, found 1: give --channels 3" in errors[3][0]
    assert "Dense: expected an official split with train and test, found without any 24: name them" in errors[4][0]
    first, again = (tmp_path / name / "run_01" for name in ("eval", "again"))
    assert (first / "predictions.csv").read_bytes() == (again / "predictions.csv").read_bytes()
    found = metrics(first)
    assert (found["task"], found["classes"], found["settings"]["window"]) == (
        "Dense", ["no dense", "dense"], "lung+chest+bone",
    )  # fmt: skip
    assert found["intervals"]["unit"] == "patient"
    _, header = load_classifier(first / "model.safetensors")
    assert len(header["mean"]) == 3
    test = Predictions.read(first / "predictions.csv").of("test")
    assert len(set(test.patients)) == 3
    told = pd.read_csv(tmp_path / "pred" / "predictions.csv").set_index("image_id").loc[test.image_ids]
    np.testing.assert_allclose(told[["p_0", "p_1"]], test.probabilities, atol=1e-4)
    everything = b"".join(path.read_bytes() for path in first.rglob("*") if path.suffix in (".csv", ".json", ".jsonl"))
    assert b"ID1" not in everything
    assert b"case1" not in everything
