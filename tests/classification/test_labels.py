"""Labels of own pictures: folders and tables with splits, groups and patients, and every mistake in one sentence."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from lessismore_transforms.classification.examples import Listing, read_pictures
from lessismore_transforms.classification.labels import labelled_pictures, split_folders
from lessismore_transforms.errors import UserError
from lessismore_transforms.reduced.patients import hash_patient, load_key
from lessismore_transforms.volumes.pictures import read_image


def draw(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((2, 3), value, np.uint8)).save(path)
    return path


def table(folder: Path, text: str, count: int = 4) -> Path:
    for number in range(count):
        draw(folder / "images" / f"{number}.png", number)
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return folder


def told(listing: Listing) -> list[tuple[str, str, str]]:
    return [(e.image_id, listing.classes[e.label], e.split) for e in listing.examples]


@pytest.mark.parametrize("pattern", ["{split}/{name}/1.png", "{name}/{split}/1.png"])
def test_folders_of_splits_are_the_official_ones(tmp_path: Path, pattern: str) -> None:
    draw(tmp_path / "logo.png")  # in no class folder, so that it says nothing
    expected = []
    for folder, split in (("Train", "train"), ("valid", "val"), ("test", "test")):
        for name in ("A", "B"):
            path = pattern.format(split=folder, name=name)
            draw(tmp_path / path)
            expected.append((path, name, split))
    assert told(labelled_pictures(tmp_path)) == sorted(expected)
    assert {e.patient for e in labelled_pictures(tmp_path).examples} == {""}  # a split is no patient


def test_a_folder_that_all_classes_share_is_no_patient(tmp_path: Path) -> None:
    """CLASS/images is the layout of COVID-19 Radiography; below it there may be folders of patients."""
    for name in ("A", "B"):
        draw(tmp_path / "flat" / name / "images" / "1.png")
        draw(tmp_path / "deep" / name / "images" / "png" / f"P{name}" / "1.png")
        draw(tmp_path / "few" / name / "P1" / "1.png")
    assert [(e.image_id, e.patient) for e in labelled_pictures(tmp_path / "flat").examples] == [
        ("A/images/1.png", ""), ("B/images/1.png", ""),
    ]  # fmt: skip
    patients = [hash_patient(name, load_key()) for name in ("PA", "PB", "P1", "P2")]
    assert [(e.image_id, e.patient) for e in labelled_pictures(tmp_path / "deep").examples] == [
        (f"{name}/images/png/{patient}/1.png", patient) for name, patient in zip("AB", patients[:2], strict=True)
    ]
    draw(tmp_path / "few" / "B" / "P2" / "1.png")
    assert [e.patient for e in labelled_pictures(tmp_path / "few").examples] == [patients[2], patients[2], patients[3]]
    (tmp_path / "few" / "B" / "P1" / "1.png").unlink()
    assert [e.patient for e in labelled_pictures(tmp_path / "few").examples] == patients[2:]


def test_no_split_where_not_all_pictures_have_one() -> None:
    assert split_folders(["a/train/1.png", "a/2.png"]) == [("", ("a", "train", "1.png")), ("", ("a", "2.png"))]
    assert split_folders(["x.png"]) == [("", ("x.png",))]
    assert split_folders(["TEST/a/x.png"]) == [("test", ("a", "x.png"))]


def test_patients_groups_and_splits_of_a_table(tmp_path: Path) -> None:
    rows = (
        "images/0.png,x,p7,,train\nimages/1.png,y,,case 3,Valid\nimages/2.png,x,p8,case 3,test\nimages/3.png,y,,c,test"
    )
    listing = labelled_pictures(table(tmp_path, f"path,label,patient,group,split\n{rows}\n"), task="Lungs")
    key = load_key()
    assert (listing.task, listing.classes) == ("Lungs", ("x", "y"))
    assert [e.split for e in listing.examples] == ["train", "val", "test", "test"]
    assert [e.patient for e in listing.examples] == [hash_patient("p7", key), "", hash_patient("p8", key), ""]
    sources = ["", hash_patient("case 3", key), hash_patient("case 3", key), hash_patient("c", key)]
    assert [e.source for e in listing.examples] == sources
    assert [picture[0, 0] for picture in read_pictures(listing)] == [0, 1, 2, 3]


def test_row_numbers_of_pandas_are_no_patients(tmp_path: Path) -> None:
    """Its index is a column without a name; a comma at the end of each line makes another."""
    listing = labelled_pictures(table(tmp_path, ",id,label,\n0,0,x,\n1,1,y,\n2,2,x,\n"))
    assert [(e.image_id, e.patient, e.source) for e in listing.examples] == [
        (f"images/{n}.png", "", "") for n in range(3)
    ]
    assert [e.label for e in listing.examples] == [0, 1, 0]


def test_names_of_groups_and_patients_are_not_in_paths(tmp_path: Path) -> None:
    for number, folder in enumerate(("Ann/case-1", "Ann/case-2", "Bob/case-1", "Bob/case-9")):
        draw(tmp_path / folder / "Ann_1.png", number)
    lines = [f"{path.relative_to(tmp_path)},{n % 2},{path.parts[-3]},{path.parts[-2]}" for n, path in
             enumerate(sorted(tmp_path.rglob("*.png")))]  # fmt: skip
    (tmp_path / "labels.csv").write_text("path,label,who,slide\n" + "\n".join(lines))
    listing = labelled_pictures(tmp_path, label_column="label", group_column="Slide")
    slides = [hash_patient(f"case-{n}", load_key()) for n in (1, 2, 1, 9)]
    assert [e.source for e in listing.examples] == slides
    assert [e.image_id for e in listing.examples] == [
        f"{who}/{slide}/Ann_1.png" for who, slide in zip(("Ann", "Ann", "Bob", "Bob"), slides, strict=True)
    ]
    (tmp_path / "labels.csv").write_text("path,label,patient\n" + "\n".join(line.rpartition(",")[0] for line in lines))
    ann, bob = (hash_patient(name, load_key()) for name in ("Ann", "Bob"))
    assert [e.image_id for e in labelled_pictures(tmp_path).examples] == [
        *(f"{ann}/case-{n}/{ann}_1.png" for n in (1, 2)), *(f"{bob}/case-{n}/Ann_1.png" for n in (1, 9)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("P005", "scans/P005a.png", "scans/#a.png"),
        ("P005", "p005/xP005-2.png", "#/x#-2.png"),
        ("7", "007/17_7.png", "#/17_#.png"),
        ("7", "x/7a.png", "x/7a.png"),  # too short to be told from a number of its own
        ("007", "7/a1007.png", "#/a1#.png"),
        ("a+b", "a+b/aab.png", "#/aab.png"),
    ],
)
def test_a_name_is_replaced_wherever_it_stands(tmp_path: Path, name: str, path: str, expected: str) -> None:
    draw(tmp_path / path)
    draw(tmp_path / "other" / "x.png")
    (tmp_path / "labels.csv").write_text(f"path,label,patient\n{path},0,{name}\nother/x.png,1,somebody\n")
    ids = [e.image_id for e in labelled_pictures(tmp_path).examples]
    assert expected.replace("#", hash_patient(name, load_key())) in ids


def test_pictures_whose_names_become_equal_are_told_apart(tmp_path: Path) -> None:
    for number, name in enumerate(("007/1.png", "07/1.png", "7/1.png")):
        draw(tmp_path / name, number)
    (tmp_path / "labels.csv").write_text("path,label,patient\n007/1.png,0,7\n07/1.png,1,7\n7/1.png,1,7\n")
    listing, seven = labelled_pictures(tmp_path), hash_patient("7", load_key())
    assert [e.image_id for e in listing.examples] == [f"{seven}/1.png", f"{seven}/1-2.png", f"{seven}/1-3.png"]
    assert [picture[0, 0] for picture in read_pictures(listing)] == [0, 1, 2]


def test_a_source_is_not_looked_for_in_the_hash_of_a_patient(tmp_path: Path) -> None:
    hashed, whole = hash_patient("Ann", load_key()), hash_patient("Bob-1", load_key())
    draw(tmp_path / "Ann" / "1.png")
    draw(tmp_path / "Bob-1" / "2.png")
    rows = f"Ann/1.png,0,Ann,{hashed[3:6]}\nBob-1/2.png,1,Bob,Bob-1\n"
    (tmp_path / "labels.csv").write_text(f"path,label,patient,group\n{rows}")
    assert [e.image_id for e in labelled_pictures(tmp_path).examples] == [f"{hashed}/1.png", f"{whole}/2.png"]


def test_the_folder_of_a_patient_is_hidden_where_dicom_tells_the_patient(tmp_path: Path, small_data: Path) -> None:
    source, key = pydicom.dcmread(sorted(small_data.rglob("*.dcm"))[5]), load_key()
    for name, patient in (("a/Smith/Smith_1.dcm", "ID1"), ("b/Jones/2.dcm", "ID2"), ("b/Brown/3.dcm", "")):
        (tmp_path / name).parent.mkdir(parents=True)
        source.PatientID = patient
        source.save_as(tmp_path / name)
    smith, jones, brown = (hash_patient(name, key) for name in ("Smith", "Jones", "Brown"))
    assert [(e.image_id, e.patient) for e in labelled_pictures(tmp_path).examples] == [
        (f"a/{smith}/{smith}_1.dcm", hash_patient("ID1", key)),
        (f"b/{brown}/3.dcm", brown),
        (f"b/{jones}/2.dcm", hash_patient("ID2", key)),
    ]


def test_folders_of_splits_count_for_a_table_without_that_column(tmp_path: Path) -> None:
    names = ["train/1.png", "train/2.png", "test/3.png"]
    for number, name in enumerate(names):
        draw(tmp_path / name, number)
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{name},{n % 2}\n" for n, name in enumerate(names)))
    expected = [("test/3.png", "0", "test"), ("train/1.png", "0", "train"), ("train/2.png", "1", "train")]
    assert told(labelled_pictures(tmp_path)) == expected
    (tmp_path / "labels.csv").write_text("path,label,split\n" + "".join(f"{n},{n[-5]},val\n" for n in names))
    assert {e.split for e in labelled_pictures(tmp_path).examples} == {"val"}  # the column wins


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (("0.0", "1.0"), ("0", "1")),
        (("-1", "+1"), ("-1", "1")),
        (("2", "010"), ("2", "10")),
        (("b 1", "a"), ("a", "b 1")),
    ],
)
def test_labels_as_numbers_or_names(tmp_path: Path, labels: tuple[str, str], classes: tuple[str, str]) -> None:
    text = "id,label\n" + "".join(f"{n},{labels[n % 2]}\n" for n in range(4))
    listing = labelled_pictures(table(tmp_path, text))
    assert listing.classes == classes
    expected = [1, 0, 1, 0] if labels[1] == "a" else [0, 1, 0, 1]
    assert [e.label for e in listing.examples] == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("id,label\n0,0\n1,1\n2,ill\n", "row 3: expected a number in label, as 0 in row 1 is, found a name, ill: wri"),
        ("id,label\n0,ill\n1,1\n", "row 2: expected a name in label, as ill in row 1 is, found a number, 1: write"),
        ("id,label\n0,0\n1,0.5\n", "row 2: expected a whole number in label, found 0.5: number the classes"),
        ("id,label\n0,Ill\n1,ill\n", "expected each class by one name, found Ill and ill: write one of them"),
        ("id,label,patient\n0,0,7\n1,1,007\n", "labels.csv: expected each patient by one name, found 7 and 007: "),
        ("id,label,patient\n0,0,p1\n1,1,P1\n", "expected each patient by one name, found p1 and P1: write one"),
        ("id,label,patient\n0,0,P1\n1,1,p01\n", "expected each patient by one name, found P1 and p01: write on"),
        ("id,label,group\n0,0,Case 3\n1,1,case 3\n", "expected each group by one name, found Case 3 and case 3: write"),
        ("id,label,group\n0,0,\n1,1,\n", "expected values in the column group, found none: fill it in or take it away"),
        ("id,label,group\n0,0,a\n1,1,\n2,1,b\n", "in each of 3 rows, found none in 1, first that of images/1.png"),
        ("id,label,split\n0,0,train\n1,1,dev\n", "row 2: expected train, val or test in the column split, found 'dev'"),
        ("id,label,split\n0,0,train\n1,1,\n", "row 2: expected train, val or test in the column split, found ''"),
        ("id,label\n0,0\n1,1\n9,1\n", "1 of 3 rows of .*labels.csv has no picture, first '9': copy it there or take"),
        ("id,label\n0,0\n1,1\n1,1\n", "row 3: 1 is in row 2 already: take one of them away"),
        ("id,label\n0,0\n1,1\n001,1\n", "row 3: 001 is in row 2 already: take one of them away"),
        ("id,label\n0,0\n1,\n", "labels.csv, row 2: label is empty: fill it in or take the row away"),
        ("id,label,group\n0,0,a\n1,1\n", "labels.csv, row 2: expected 3 values, found 2"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_table_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as said:
        labelled_pictures(table(tmp_path, text))
    assert "\n" not in str(said.value)


def test_names_that_differ_in_more_than_zeros_and_capital_letters(tmp_path: Path) -> None:
    rows = "0,0,10,x\n1,1,1,X1\n2,0,100,x10\n3,1,1,x\n"
    listing = labelled_pictures(table(tmp_path, f"id,label,patient,group\n{rows}"))
    assert len({e.patient for e in listing.examples}) == 3
    for name in ("P1", "p1"):
        draw(tmp_path / "folders" / ("a" if name == "p1" else "b") / name / "1.png")
    with pytest.raises(UserError, match="folders: expected each patient by one name, found p1 and P1"):
        labelled_pictures(tmp_path / "folders")


def test_mistakes_in_folders_and_settings(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/b/1.png", "other/a/1.png"):
        draw(tmp_path / "one" / name)
    with pytest.raises(UserError, match="below train, val and test, or none, found folders train beside other: move"):
        labelled_pictures(tmp_path / "one")
    for name in ("train/Ill/1.png", "train/well/1.png", "test/ill/1.png"):
        draw(tmp_path / "two" / name)
    with pytest.raises(UserError, match="each class by one name, found Ill and ill"):
        labelled_pictures(tmp_path / "two")
    with pytest.raises(UserError, match="expected a CSV file for the group column case, found none"):
        labelled_pictures(tmp_path / "two", group_column="case")
    with pytest.raises(UserError, match="a column case, found id, label: check the name of the group column"):
        labelled_pictures(table(tmp_path / "three", "id,label\n0,0\n1,1\n"), group_column="case")
    with pytest.raises(UserError, match=r"expected one window, or three with .* found 2 windows in 'lung\+bone'"):
        labelled_pictures(tmp_path / "two", window="lung+bone")


def test_three_windows_are_three_channels(tmp_path: Path, small_data: Path) -> None:
    source = pydicom.dcmread(sorted(small_data.rglob("*.dcm"))[5])
    for name, patient in (("a/1.dcm", "ID1"), ("b/2.dcm", "ID2")):
        (tmp_path / name).parent.mkdir()
        source.PatientID = patient
        source.save_as(tmp_path / name)
    draw(tmp_path / "a" / "3.tif", 7)
    listing = labelled_pictures(tmp_path, window="lung+40/400+bone")
    assert Counter(bool(e.patient) for e in listing.examples) == {True: 2, False: 1}
    first, tiff, _ = read_pictures(listing, 3)
    for channel, window in enumerate(("lung", "40/400", "bone")):
        np.testing.assert_array_equal(first[..., channel], read_image(tmp_path / "a/1.dcm", window=window))
    assert (first[..., 0] != first[..., 1]).any()
    np.testing.assert_array_equal(tiff, np.full((2, 3, 3), 7))
    with pytest.raises(UserError, match=r"3 channels for the 3 windows lung\+40/400\+bone, found 1: give --channels 3"):
        read_pictures(listing, 1)
