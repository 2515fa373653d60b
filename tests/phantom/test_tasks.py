from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import bundle_scripts, tree
from PIL import Image

from lessismore_transforms.classification.examples import Examples
from lessismore_transforms.phantom import write_demo_task
from lessismore_transforms.phantom.tasks import TISSUES


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    for task in ("covid19", "organsmnist", "brain", "breakhis", "colorectal", "pneumonia"):
        write_demo_task(folder / task, task, patients=8)
    return folder


def splits_of(examples: Examples) -> dict[str, set[str]]:
    """Digests of the pictures of each split."""
    digests: dict[str, set[str]] = {}
    for example, image in zip(examples.examples, examples.images, strict=True):
        digests.setdefault(example.split, set()).add(hashlib.sha256(image.tobytes()).hexdigest())
    return digests


def counts(examples: Examples) -> Counter[tuple[str, int]]:
    return Counter((example.split, example.label) for example in examples.examples)


def test_covid_is_read_by_its_bundle_and_papers_stay_in_one_split(tasks: Path) -> None:
    found = bundle_scripts("covid19_ct_classification").listing(tasks / "covid19")
    examples = Examples.of(found)
    assert found.classes == ("COVID", "NonCOVID")
    assert counts(examples) == {
        (s, label): 3 * n for s, n in (("train", 2), ("val", 1), ("test", 1)) for label in (0, 1)
    }
    sources = {split: {e.source for e in found.examples if e.split == split} for split in ("train", "val", "test")}
    assert {split: len(names) for split, names in sources.items()} == {"train": 4, "val": 2, "test": 2}
    assert len(set.union(*sources.values())) == 8
    assert all("%" in example.image_id for example in found.examples)
    digests = splits_of(examples)
    assert sum(map(len, digests.values())) == len(set.union(*digests.values())) == 24
    assert examples.images[0].shape == (64, 64)


def test_organs_are_an_npz_of_medmnist(tasks: Path) -> None:
    with np.load(tasks / "organsmnist" / "organsmnist.npz") as arrays:
        for split, patients in (("train", 4), ("val", 2), ("test", 2)):
            assert arrays[f"{split}_images"].shape == (3 * patients, 28, 28)
            assert arrays[f"{split}_images"].dtype == np.uint8
            assert arrays[f"{split}_labels"].ravel().tolist() == [0, 1, 2] * patients
            assert arrays[f"{split}_labels"].shape == (3 * patients, 1)
        pictures = np.concatenate([arrays[f"{split}_images"] for split in ("train", "val", "test")])
    assert len(np.unique(pictures, axis=0)) == 24


def test_brain_has_patients_of_one_class_in_folds(tasks: Path) -> None:
    with (tasks / "brain" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert len({(row["patient"], row["hemorrhage"]) for row in rows}) == 8
    assert Counter(row["hemorrhage"] for row in rows) == {"0": 12, "1": 12}
    found = bundle_scripts("brain_hemorrhage_ct_classification").listing(tasks / "brain", folds=2)
    assert len(found.classes) == 2
    for split in ("train", "val", "test"):
        assert {example.label for example in found.examples if example.split == split} == {0, 1}
    by_patient: dict[str, set[str]] = {}
    for example in found.examples:
        by_patient.setdefault(example.patient, set()).add(example.split)
    assert len(by_patient) == 8
    assert all(len(splits) == 1 for splits in by_patient.values())


def test_slides_have_parts_and_magnifications_in_an_official_split(tasks: Path) -> None:
    listing = bundle_scripts("breakhis_classification").listing
    found = listing(tasks / "breakhis", protocol="official", magnification="all")
    examples = Examples.of(found, channels=3)
    assert counts(examples) == {("train", 0): 6, ("train", 1): 6, ("val", 0): 3, ("val", 1): 3} | {
        ("test", label): 3 for label in (0, 1)
    }
    assert len({example.patient for example in found.examples}) == 8
    assert len({example.image_id for example in listing(tasks / "breakhis", magnification=400, folds=4).examples}) == 16
    assert {path.stem.split("-")[2] for path in (tasks / "breakhis").rglob("*14-20002*")} == {
        "20002",
        "20002AB",
        "20002CD",
    }
    assert {image.shape for image in examples.images} == {(64, 64, 3)}
    purple = {label: [] for label in (0, 1)}
    for example, image in zip(found.examples, examples.images, strict=True):
        purple[example.label].append((image[..., 1] < 120).mean())
    assert min(purple[1]) > max(purple[0])


def test_tissues_differ_and_x_rays_of_the_ill_are_brighter(tasks: Path) -> None:
    found = bundle_scripts("colorectal_classification").listing(tasks / "colorectal", folds=4)
    examples = Examples.of(found, channels=3)
    assert found.classes == tuple(TISSUES)
    assert counts(examples).total() == 64
    shown = np.array([[(image[..., 1] < 120).mean(), image.mean()] for image in examples.images])
    labels = np.array([example.label for example in found.examples])
    means = np.array([shown[labels == label].mean(axis=0) for label in range(8)])
    assert len({tuple(row) for row in means.round(2).tolist()}) == 8
    found = bundle_scripts("pneumonia_xray_classification").listing(tasks / "pneumonia", validation=0.3)
    examples = Examples.of(found)
    assert counts(examples) == {
        (split, label): 3 * n for split, n in (("train", 2), ("val", 1), ("test", 1)) for label in (0, 1)
    }
    lungs = [image[20:44, 14:50].astype(float) for image in examples.images]
    dark: dict[int, list[float]] = {0: [], 1: []}
    for example, lung in zip(found.examples, lungs, strict=True):
        dark[example.label].append(float((lung < 70).mean()))
    assert np.mean(dark[0]) > 1.2 * np.mean(dark[1])


def test_what_is_to_be_learned_can_be_seen(tasks: Path) -> None:
    """Ill lungs are denser than the same lungs when healthy; hemorrhages are the brightest parts within a brain."""
    ill, healthy = (
        np.stack([np.asarray(Image.open(path)) for path in sorted((tasks / "covid19" / name).iterdir())]).astype(int)
        for name in ("CT_COVID", "CT_NonCOVID")
    )
    difference = ill - healthy
    assert (difference >= 0).all()
    assert ((difference > 20).sum(axis=(1, 2)) > 30).all()
    with (tasks / "brain" / "labels.csv").open(newline="") as file:
        labels = {row["id"]: int(row["hemorrhage"]) for row in csv.DictReader(file)}
    bright: dict[int, list[int]] = {0: [], 1: []}
    for name, label in labels.items():
        image = np.asarray(Image.open(tasks / "brain" / name))
        bright[label].append(int(((image > 150) & (image < 230)).sum()))
    assert np.mean(bright[1]) > 1.3 * np.mean(bright[0])


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path: Path, tasks: Path) -> None:
    again, other = (write_demo_task(tmp_path / str(n), "brain", patients=8, seed=n) for n in (0, 1))
    assert tree(again) == tree(tasks / "brain")
    assert tree(other) != tree(again)


@pytest.mark.parametrize(
    ("task", "patients", "message"),
    [("covid", 8, "found 'covid'"), ("brain", 12, "a multiple of 8, found 12"), ("brain", 0, "found 0")],
)
def test_impossible_tasks_are_refused(tmp_path: Path, task: str, patients: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_demo_task(tmp_path / "new", task, patients=patients)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="a new or empty folder"):
        write_demo_task(tmp_path, "brain")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
