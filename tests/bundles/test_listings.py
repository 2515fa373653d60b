"""What the three classification bundles take for their data sets: made ones with every mistake, and the real ones."""

from __future__ import annotations

import gc
import hashlib
import logging
import shutil
import sys
import types
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from helpers import bundle_scripts
from PIL import Image

from lessismore_transforms.classification.examples import Examples, Listing
from lessismore_transforms.errors import UserError
from lessismore_transforms.reduced.patients import hash_patient, load_key
from lessismore_transforms.volumes.pictures import read_image


def covid(folder: Path, **options) -> Listing:
    return bundle_scripts("covid19_ct_classification").listing(folder, **options)


def organs(folder: Path, **options) -> Listing:
    return bundle_scripts("organsmnist_ct_classification").listing(folder, **options)


def brain(folder: Path, **options) -> Listing:
    return bundle_scripts("brain_hemorrhage_ct_classification").listing(folder, **options)


def counts(listing: Listing) -> Counter:
    return Counter((example.split, listing.classes[example.label]) for example in listing.examples)


def draw(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((2, 3), value, np.uint8)).save(path, format="JPEG" if value % 2 else "PNG")
    return path


# COVID-CT

LISTS = {
    ("COVID", "train"): "2020.1-p1-2%0.png\r\n\r\n2020.1-p1-2%1.png\r\n",
    ("COVID", "val"): "\nPII1%0.png",
    ("COVID", "test"): "2020.2-p12-3_1%0.png\n2020.1-p9-7.png \n",
    ("NonCOVID", "train"): "0.jpg\n1%0.jpg",
    ("NonCOVID", "val"): "14.png\r",
    ("NonCOVID", "test"): "15.png\n16.png\n\n\n",
}


def covid_set(folder: Path, *, merged: bool = False) -> Path:
    number = 0
    for (name, split), text in LISTS.items():
        place = folder / "Data-split" / name / f"{split}CT_{name}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text.encode())
        for entry in text.split():
            draw(folder / ("all" if merged else f"Images-processed/CT_{name}") / entry, number)
            number += 1
    return folder


@pytest.mark.parametrize("merged", [False, True])
def test_covid_lists(tmp_path, caplog, merged):
    listing = covid(covid_set(tmp_path, merged=merged))
    assert (listing.task, listing.classes) == ("COVID-19", ("COVID", "NonCOVID"))
    places = ("all", "all") if merged else ("Images-processed/CT_COVID", "Images-processed/CT_NonCOVID")
    assert [(e.image_id, e.label, e.split) for e in listing.examples] == [
        (f"{places[name == 'NonCOVID']}/{entry}", int(name == "NonCOVID"), split)
        for (name, split), text in LISTS.items()
        for entry in text.split()
    ]
    assert [e.source for e in listing.examples] == [
        *("2020.1", "2020.1", "PII1.png", "2020.2", "2020.1", "0.jpg", "1.jpg", "14.png", "15.png", "16.png")
    ]
    images = Examples.of(listing).images
    np.testing.assert_array_equal([image[0, 0] for image in images], range(10))  # each its own, JPEG in .png too
    assert not caplog.records


def test_covid_pictures_on_no_list_are_counted(tmp_path, caplog):
    covid_set(tmp_path)
    for name in ("CT_COVID/x.png", "CT_NonCOVID/y.png", "figures/z.png"):
        draw(tmp_path / "Images-processed" / name)
    with caplog.at_level(logging.WARNING):
        assert len(covid(tmp_path).examples) == 10
    assert [record.getMessage() for record in caplog.records] == [
        "2 pictures are on no list and are left out, first Images-processed/CT_COVID/x.png"
    ]


def add(path: str, line: str):
    def change(root: Path) -> None:
        with (root / path).open("a") as file:
            file.write(f"\n{line}\n")

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda root: shutil.rmtree(root), "expected a folder of pictures at"),
        (
            lambda root: (root / "Data-split/COVID/valCT_COVID.txt").unlink(),
            "expected one list .*COVID/valCT_COVID.txt",
        ),
        (
            lambda root: shutil.copytree(root / "Data-split", root / "copy"),
            "found Data-split/COVID/trainCT_COVID.txt, copy/COVID/trainCT_COVID.txt",
        ),
        (
            lambda root: shutil.rmtree(root / "Images-processed/CT_NonCOVID"),
            "pictures of NonCOVID in a folder CT_NonCOVID",
        ),
        (
            lambda root: (root / "Images-processed/CT_NonCOVID/14.png").unlink(),
            "1 of 5 listed pictures .* first 14.png",
        ),
        (add("Data-split/COVID/valCT_COVID.txt", "no.png"), "1 of 6 listed pictures of COVID is .* first no.png"),
        (add("Data-split/COVID/valCT_COVID.txt", "PII1%0.png"), "PII1%0.png is twice in valCT_COVID.txt"),
        (
            add("Data-split/NonCOVID/testCT_NonCOVID.txt", "0.jpg"),
            "0.jpg is listed in testCT_NonCOVID.txt and already in trainCT_NonCOVID.txt",
        ),
        (
            add("Data-split/NonCOVID/valCT_NonCOVID.txt", "PII1%0.png"),
            "PII1%0.png is listed in valCT_NonCOVID.txt and already in valCT_COVID.txt",
        ),
        (
            lambda root: draw(root / "one/14.png") and draw(root / "CT_NonCOVID/14.png"),
            "expected one picture of each name",
        ),
    ],
)
def test_covid_mistakes(tmp_path, change, sentence):
    change(covid_set(tmp_path / "data"))
    with pytest.raises(ValueError, match=sentence):
        covid(tmp_path / "data")


def test_real_covid_ct(real_data):
    listing = covid(real_data / "covid_ct")
    assert counts(listing) == {
        ("train", "COVID"): 191, ("val", "COVID"): 60, ("test", "COVID"): 98,
        ("train", "NonCOVID"): 234, ("val", "NonCOVID"): 58, ("test", "NonCOVID"): 105,
    }  # fmt: skip
    splits: dict[str, set[str]] = {}
    for example in listing.examples:
        if example.source:
            splits.setdefault(example.source, set()).add(example.split)
    assert len(splits) == 342
    assert sum("test" in found for found in splits.values()) == 95  # of 203 pictures
    assert {source: found for source, found in splits.items() if len(found) > 1} == {
        "2020.03.12.20034686": {"train", "test"},
        "2020.03.13.20035212": {"train", "val"},
        "2020.03.22.20040782": {"val", "test"},
    }
    some = Listing(listing.task, listing.classes, listing.examples[::8], listing.read)
    examples = Examples.of(some, channels=3)
    assert {image.ndim for image in examples.images} == {3}
    assert min(min(image.shape[:2]) for image in examples.images) >= 61


# OrganSMNIST


def npz(folder: Path, name: str = "organsmnist.npz", *, size: int = 4, classes: int = 11, **changes) -> Path:
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 30), ("val", 22), ("test", 25)):
        arrays[f"{split}_images"] = random.integers(0, 256, (count, size, size), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % classes)[:, None]
    arrays |= changes
    np.savez_compressed(folder / name, **{key: value for key, value in arrays.items() if value is not None})
    return folder / name


def test_organs_in_the_medmnist_layout(tmp_path):
    path = npz(tmp_path)
    listing = organs(tmp_path, md5="any")
    assert (listing.task, len(listing.classes), listing.classes[0], listing.classes[10]) == (
        "OrgMNIST", 11, "bladder", "spleen",
    )  # fmt: skip
    assert Counter(example.split for example in listing.examples) == {"train": 30, "val": 22, "test": 25}
    assert listing.examples[31].image_id == "val/1"
    assert listing.examples[31].label == 1
    examples = Examples.of(listing)
    with np.load(path) as arrays:
        np.testing.assert_array_equal(examples.images[31], arrays["val_images"][1])
        np.testing.assert_array_equal(
            Examples.of(listing, channels=3).images[31], np.stack([arrays["val_images"][1]] * 3, axis=2)
        )
        flat = npz(tmp_path, "flat.npz", **{name: array[:, 0] for name, array in arrays.items() if "labels" in name})
    assert Examples.of(organs(tmp_path, npz=flat.name, md5="any")).identity() == examples.identity()
    digits = hashlib.md5(path.read_bytes()).hexdigest()
    assert organs(tmp_path, md5=digits.upper()).examples == listing.examples


def test_colour_npz(tmp_path):
    random = np.random.default_rng(1)
    images = {f"{s}_images": random.integers(0, 256, (n, 4, 5, 3), np.uint8) for s, n in (("train", 30), ("val", 22))}
    npz(tmp_path, **images, test_images=np.full((25, 4, 5, 3), (10, 20, 30), np.uint8))
    listing = organs(tmp_path, md5="any")
    np.testing.assert_array_equal(Examples.of(listing, channels=3).images[30], images["val_images"][0])
    grey = Examples.of(listing).images[-1]
    np.testing.assert_array_equal(grey, np.full((4, 5), round(0.299 * 10 + 0.587 * 20 + 0.114 * 30)))


def test_the_official_md5_of_the_size_is_wanted(tmp_path):
    path = npz(tmp_path, "organsmnist_64.npz")
    found = hashlib.md5(path.read_bytes()).hexdigest()
    sentence = f"to have the md5 53a6d115339d874c25e309a994ff46d3, found {found}: .*--md5 any"
    with pytest.raises(ValueError, match=sentence):
        organs(tmp_path, size=64)
    with pytest.raises(ValueError, match="expected a size of 28, 64, 128, 224 pixels, found 32"):
        organs(tmp_path, size=32)
    with pytest.raises(ValueError, match='expected md5 "official", 32 hex digits or "any", found \'1234\''):
        organs(tmp_path, size=64, md5="1234")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"val_labels": None, "test_images": None}, "lacks val_labels, test_images: expected"),
        (
            {"val_labels": np.zeros((22, 2), np.uint8)},
            r"val_labels to be whole numbers \(22,\) or \(22, 1\), found uint8 ",
        ),
        ({"val_labels": np.zeros(21, np.uint8)}, r"found uint8 \(21,\)"),
        ({"val_labels": np.zeros(22)}, "found float64"),
        ({"val_images": np.zeros((22, 4, 4))}, "expected val_images to be uint8 .*found float64"),
        ({"val_images": np.zeros((22, 4, 4, 4), np.uint8)}, r"found uint8 \(22, 4, 4, 4\)"),
        ({"val_images": np.array([None] * 22)}, "cannot be read as an npz file, it is damaged or holds other"),
    ],
)
def test_npz_mistakes(tmp_path, changes, sentence):
    npz(tmp_path, **changes)
    with pytest.raises(ValueError, match=sentence):
        organs(tmp_path, md5="any")


def test_a_damaged_npz_and_too_few_classes(tmp_path):
    path = npz(tmp_path)
    with pytest.raises(ValueError, match="expected labels from 0 to 1 for 2 classes, found 2 for train/2"):
        Examples.of(organs(tmp_path, md5="any", classes=("a", "b")))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="cannot be read as an npz file"):
        organs(tmp_path, md5="any")
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read as an npz file"):
        organs(tmp_path, md5="any")


def test_a_damaged_npz_is_closed(tmp_path):
    path = npz(tmp_path)
    path.write_bytes(path.read_bytes()[:500])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(UserError, match="cannot be read as an npz file"):
            organs(tmp_path, md5="any")
        gc.collect()
    assert not [str(each.message) for each in said if issubclass(each.category, ResourceWarning)]


def test_download_goes_through_medmnist(tmp_path, monkeypatch):
    calls = []

    def fetch(**options) -> None:
        calls.append(options)
        npz(Path(options["root"]), "organsmnist_64.npz")

    monkeypatch.setitem(sys.modules, "medmnist", types.SimpleNamespace(OrganSMNIST=fetch))
    with pytest.raises(ValueError, match=r"expected the file .*organsmnist_64.npz, found nothing"):
        organs(tmp_path / "new", size=64)
    with pytest.raises(ValueError, match=r"expected the file .*own.npz, found nothing"):
        organs(tmp_path / "new", npz="own.npz", download=True)
    assert not calls
    organs(tmp_path / "new", size=64, md5="any", download="true")
    organs(tmp_path / "new", size=64, md5="any", download=True)  # there by now
    assert calls == [{"split": "train", "root": str(tmp_path / "new"), "size": 64, "download": True}]
    monkeypatch.setitem(sys.modules, "medmnist", None)
    with pytest.raises(UserError, match=r"package medmnist, which is not installed: pip install 'lessismore"):
        organs(tmp_path, download=True)


def test_real_npz(real_data):
    options = {"npz": "pneumoniamnist_balanced.npz", "classes": ("normal", "pneumonia")}
    listing = organs(real_data / "medmnist", md5="any", **options)
    assert counts(listing) == {
        (split, name): count
        for split, count in (("train", 1214), ("val", 135), ("test", 234))
        for name in ("normal", "pneumonia")
    }
    assert {image.shape for image in Examples.of(listing).images} == {(28, 28)}
    with pytest.raises(ValueError, match="to have the md5 9ab87b696fb54e2a387ebe992d6ed5f1, found"):
        organs(real_data / "medmnist", **options)


# Head CT


def class_folders(folder: Path, *, count: int = 12, below: str = "") -> Path:
    for number in range(count):
        draw(folder / "b_with" / below.format(number // 2) / f"{number}.png", 2 * number)
        draw(folder / "a_without" / below.format(100 + number // 2) / f"{number}.png", 100 + 2 * number)
    return folder


def test_class_folders(tmp_path):
    listing = brain(class_folders(tmp_path))
    assert (listing.task, listing.classes) == ("Brain", ("a_without", "b_with"))
    assert [example.image_id for example in listing.examples][:3] == [
        "a_without/0.png",
        "a_without/1.png",
        "a_without/10.png",
    ]
    assert all(listing.classes[example.label] == example.image_id.split("/")[0] for example in listing.examples)
    assert {example.patient for example in listing.examples} == {""}
    tested = Counter()
    for fold in range(5):
        listing = brain(tmp_path, fold=fold)
        tested.update(example.image_id for example in listing.examples if example.split == "test")
        assert {count for (split, _), count in counts(listing).items() if split == "val"} == {1}
    assert tested == {example.image_id: 1 for example in listing.examples}
    assert brain(tmp_path, split_seed=1, fold=4).examples != listing.examples


def test_a_folder_in_a_class_folder_is_a_patient(tmp_path):
    listing = brain(class_folders(tmp_path, below="patient {}"))
    folders = sorted(path.parent.name for path in tmp_path.glob("*/*/*.png"))
    expected = {hash_patient(name, load_key()) for name in folders}
    assert {example.patient for example in listing.examples} == expected
    assert len(expected) == 12
    for example in listing.examples:
        assert example.image_id.split("/")[1] == example.patient  # no name is written
    assert len({(example.patient, example.split) for example in listing.examples}) == 12
    assert len(Examples.of(listing).images) == len(listing.examples)  # and yet each picture is found


def test_train_and_test_folders_count_together(tmp_path):
    class_folders(tmp_path / "train", count=8)
    class_folders(tmp_path / "test", count=2)
    listing = brain(tmp_path)
    assert listing.classes == ("a_without", "b_with")
    assert counts(listing).total() == 20
    assert counts(listing)["test", "b_with"] == 2


def dicom_folders(folder: Path, small_data: Path) -> list[Path]:
    """24 slices of 12 patients, one file without a suffix; the last two patients have no PatientID."""
    source = pydicom.dcmread(sorted(small_data.rglob("*.dcm"))[5])
    paths = []
    for number in range(24):
        source.PatientID = f"ID{number // 2}" if number < 20 else ""
        path = folder / ("with" if number % 4 < 2 else "without") / ("x" if number == 3 else f"{number:02}.dcm")
        path.parent.mkdir(parents=True, exist_ok=True)
        source.save_as(path)
        paths.append(path)
    return paths


def test_dicom_folders_give_windowed_pictures_and_hashed_patients(tmp_path, small_data):
    paths = dicom_folders(tmp_path, small_data)
    listing = brain(tmp_path, window="60/400")
    assert len(listing.examples) == 24
    key = load_key()
    patients = {example.image_id: example.patient for example in listing.examples}
    for number, path in enumerate(paths):
        expected = hash_patient(f"ID{number // 2}", key) if number < 20 else ""
        assert patients[path.relative_to(tmp_path).as_posix()] == expected
    images = Examples.of(listing).images
    np.testing.assert_array_equal(images[0], read_image(paths[0], window="60/400"))
    assert (images[0] != Examples.of(brain(tmp_path)).images[0]).any()
    np.testing.assert_array_equal(Examples.of(brain(tmp_path, window=None)).images[0], read_image(paths[0]))
    with pytest.raises(ValueError, match="expected a window"):
        brain(tmp_path, window="brian")


def table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    for number in range(12):
        draw(folder / "images" / f"{number:03}.png", number)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def rows(template: str = "{i},{label}", count: int = 12) -> str:
    return "\n".join(template.format(i=i, label=i % 2) for i in range(count)) + "\n"


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("id, hemorrhage\n" + rows(), ("no hemorrhage", "hemorrhage")),
        ("\ufeffID,Label\n" + rows("{i:03}.png,{label}"), ("0", "1")),
        ("label , path\n" + rows("10{label} , images/{i:03}.png"), ("100", "101")),
        ("label,path\n" + rows("class{label},./images\\{i:03}.png"), ("class0", "class1")),
        ("file,label\n" + rows("images/{i:03},{label}"), ("0", "1")),
    ],
)
def test_tables(tmp_path, text, classes):
    listing = brain(table(tmp_path, text))
    assert listing.classes == classes
    assert [(e.image_id, e.label) for e in listing.examples] == [(f"images/{i:03}.png", i % 2) for i in range(12)]
    assert {e.patient for e in listing.examples} == {""}
    assert [image[0, 0] for image in Examples.of(listing).images] == list(range(12))


def test_labels_that_are_numbers_are_sorted_as_numbers(tmp_path):
    listing = brain(table(tmp_path, "id,label\n" + "".join(f"{i},{(2, 10)[i % 2]}\n" for i in range(12))))
    assert listing.classes == ("2", "10")


def test_patients_of_a_table_stay_together_and_are_hashed(tmp_path):
    text = "id,label,patient\n" + "".join(f"{i},{i % 2},name{(i // 4) * 2 + i % 2}\n" for i in range(12))
    listing = brain(table(tmp_path, text), folds=3)
    key = load_key()
    assert [e.patient for e in listing.examples] == [
        hash_patient(f"name{(i // 4) * 2 + i % 2}", key) for i in range(12)
    ]
    assert len({(e.patient, e.split) for e in listing.examples}) == 6
    assert counts(listing) == {(split, name): 2 for split in ("train", "val", "test") for name in ("0", "1")}


def test_a_table_that_is_named_and_its_column(tmp_path):
    table(tmp_path, "id,a,b\n" + rows("{i},0,{label}"))
    table(tmp_path, "id,label\n" + rows(), name="other.csv")
    with pytest.raises(ValueError, match=r"expected one CSV file of labels in .*, found labels.csv, other.csv"):
        brain(tmp_path)
    for name in ("labels.csv", str(tmp_path / "labels.csv")):
        assert brain(tmp_path, labels=name, label_column="B").classes == ("no b", "b")
    with pytest.raises(ValueError, match="expected one column of labels, found a, b: name it with --label_column"):
        brain(tmp_path, labels="labels.csv")
    with pytest.raises(ValueError, match="expected a column c, found id, a, b"):
        brain(tmp_path, labels="labels.csv", label_column="c")
    with pytest.raises(ValueError, match="expected the CSV file of labels at"):
        brain(tmp_path, labels="none.csv")


def test_pictures_without_a_row_are_counted(tmp_path, caplog):
    table(tmp_path, "id,label\n" + rows(count=11))
    with caplog.at_level(logging.WARNING):
        assert len(brain(tmp_path).examples) == 11
    assert [record.getMessage() for record in caplog.records] == ["1 picture has no row in labels.csv and is left out"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("id,label\n" + rows(count=14), "2 of 14 rows of .*labels.csv have no picture, first '12'"),
        ("id,label\n" + rows() + "003.png,1\n", "row 13: 003.png is in row 4 already"),
        ("id,label\n0,1\n1,0,7\n", "labels.csv, row 2: expected 2 values, found 3"),
        ("id,label\n0,1\n1,\n", "row 2: label is empty"),
        ("name,label\n" + rows(), "expected a column that names the picture"),
        ("id,id,label\n" + rows("{i},{i},{label}"), "expected each column once, found id, id, label"),
        ("id,Label,label\n" + rows("{i},1,{label}"), "expected each column once, found id, label, label"),
        ("", "labels.csv has no rows: expected a header and a row per picture"),
        ("id,label\n", "labels.csv has no rows: expected a header and a row per picture"),
        ("id,label\n" + rows("{i},1"), "expected rows of two classes or more, found 1 in label"),
    ],
)
def test_table_mistakes(tmp_path, text, sentence):
    table(tmp_path, text)
    with pytest.raises(ValueError, match=sentence):
        brain(tmp_path)


def test_a_row_that_fits_two_pictures(tmp_path):
    table(tmp_path, "id,label\n" + rows())
    draw(tmp_path / "more" / "3.png")
    with pytest.raises(ValueError, match=r"row 4: 3 may be images/003.png or more/3.png: give the path"):
        brain(tmp_path)
    draw(tmp_path / "3.png")
    (tmp_path / "labels.csv").write_text("path,label\n" + rows("images/{i:03}.png,{label}") + "3.png,1\nmore/3.png,0\n")
    assert {e.image_id: e.label for e in brain(tmp_path).examples if "/0" not in e.image_id} == {
        "3.png": 1,
        "more/3.png": 0,
    }


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fold": 5}, "expected a fold from 0 to 4 of 5, found 5"),
        ({"folds": 13}, "at least 13 patients .* of the class a_without for 13 folds, found 12"),
    ],
)
def test_fold_mistakes(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        brain(class_folders(tmp_path), **options)


def test_folders_without_classes_or_pictures(tmp_path):
    with pytest.raises(ValueError, match=r"expected PNG, JPEG, TIFF or DICOM files below .*, found none"):
        brain(tmp_path)
    draw(tmp_path / "only" / "1.png")
    draw(tmp_path / "2.png")
    with pytest.raises(ValueError, match=r"expected a folder of pictures for each class, .*, found only"):
        brain(tmp_path)


def test_real_head_ct(real_data):
    tested = Counter()
    for fold in range(5):
        listing = brain(real_data / "head_ct_hemorrhage", fold=fold)
        assert counts(listing) == {
            (split, name): count
            for split, count in (("train", 72), ("val", 8), ("test", 20))
            for name in ("hemorrhage", "no hemorrhage")
        }
        tested.update(example.image_id for example in listing.examples if example.split == "test")
        assert all(example.label == (int(Path(example.image_id).stem) < 100) for example in listing.examples)
    assert len(tested) == tested.total() == 200
    assert len(Examples.of(listing).images) == 200
