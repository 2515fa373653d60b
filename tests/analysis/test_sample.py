"""Which pictures networks are shown."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lessismore_transforms.analysis.sample import read_sample
from lessismore_transforms.classification.preprocessing import resized
from lessismore_transforms.errors import UserError
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduction.hashing import dhash
from lessismore_transforms.reduction.intensity import min_max_uint8
from lessismore_transforms.reduction.target import Target


def test_pictures_of_a_table_come_with_label_and_patient(explained: Path) -> None:
    sample = read_sample(explained / "pictures", size=32, labels=explained / "plain.csv")
    assert (len(sample.names), sample.of, sample.unit) == (24, 24, "patient")
    assert sample.images.shape == (24, 1, 32, 32)
    for place, name in enumerate(sample.names):
        patient = int(name[1])
        assert sample.labels[place] == ("dark", "bright")[patient % 2]
        assert sample.groups[place] == f"patient {patient}"
        picture = np.asarray(Image.open(explained / "pictures" / name))
        expected = resized(torch.from_numpy(picture.copy())[None], 32, "bilinear")
        assert torch.equal(sample.images[place], expected)
        assert sample.hashes[place] == dhash(min_max_uint8(picture))
    assert len(set(zip(sample.volumes.tolist(), sample.groups, strict=True))) == 8
    assert sample.classes(["dark", "bright"]).tolist() == [label == "bright" for label in sample.labels]
    assert sample.class_names(["dark", "bright"]) == ["dark", "bright"]
    assert sample.class_names([]) == ["bright", "dark"]


def test_pictures_of_a_patient_lie_apart(explained: Path) -> None:
    groups = read_sample(explained / "pictures", size=8, labels=explained / "plain.csv").groups
    for start in range(0, 24, 8):
        assert len(set(groups[start : start + 8])) >= 7  # 3 pictures of each of 8 patients


def test_a_split_and_a_draw(explained: Path) -> None:
    given = {"size": 8, "labels": f"{explained / 'labels.csv'}:test"}
    whole = read_sample(explained / "pictures", **given)
    assert {name[:2] for name in whole.names} == {f"p{patient}" for patient in range(1, 8)}
    some = [read_sample(explained / "pictures", pictures=9, seed=seed, **given) for seed in (0, 0, 1)]
    assert some[0].names == some[1].names != some[2].names
    assert (len(some[0].names), some[0].of) == (9, 21)


def test_numbers_of_classes_get_their_names(explained: Path, tmp_path: Path) -> None:
    rows = [f"p{n // 3}/{n}.png,{10 if n < 12 else 2},{'a' if n else ''}" for n in range(24)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,other", *rows]))
    sample = read_sample(explained / "pictures", size=8, labels=tmp_path / "t.csv")
    assert sample.class_names([]) == ["2", "10"]
    assert sample.named(["dark", "bright"]) is sample  # there is no class 10
    rows = [row.replace(",10,", ",0,").replace(",2,", ",1,") for row in rows]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,other", *rows]))
    named = read_sample(explained / "pictures", size=8, labels=tmp_path / "t.csv").named(["dark", "bright"])
    assert [label == "dark" for label in named.labels] == [int(name.split("/")[1][:-4]) < 12 for name in named.names]


def test_folders_are_classes_where_that_is_said(explained: Path) -> None:
    sample = read_sample(explained / "pictures", size=8, labels="folders")
    assert list(sample.labels) == [name.partition("/")[0] for name in sample.names]
    assert sample.unit == "picture"
    assert read_sample(explained / "pictures", size=8).labels == ()


def test_slices_of_an_output_bring_patient_volume_and_hash(small_data: Path, tmp_path: Path) -> None:
    reduce_dataset(small_data, tmp_path / "out", Settings(Target.of(threshold=4)), workers=0)
    sample = read_sample(tmp_path / "out", size=16)
    assert set(sample.names) == set(Selection.read(tmp_path / "out").kept_ids)
    slices = Manifest.read(tmp_path / "out").slices.set_index("slice_id").loc[list(sample.names)]
    assert sample.hashes.tolist() == slices["hash"].tolist()
    assert list(sample.groups) == slices["patient"].tolist()
    assert sample.unit == "patient"
    assert len(set(zip(sample.volumes.tolist(), slices["volume"], strict=True))) == len(set(slices["volume"]))


def test_a_manifest_of_the_user_s_own_makes_no_output_of_a_folder(explained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(explained / "pictures", tmp_path / "pictures")
    (folder / "manifest.json").write_text("{}")
    expected, found = (read_sample(each, size=8) for each in (explained / "pictures", folder))
    assert found.names == expected.names
    assert torch.equal(found.images, expected.images)


def test_a_picture_that_cannot_be_read_is_told(explained: Path, tmp_path: Path) -> None:
    for number in range(4):
        Image.new("L", (9, 9), 50 * number).save(tmp_path / f"{number}.png")
    (tmp_path / "4.png").write_text("no picture")
    sample = read_sample(tmp_path, size=8)
    assert sorted(sample.names) == ["0.png", "1.png", "2.png", "3.png"]
    assert sample.unread["4.png"].startswith("4.png cannot be read as an image")  # without the folder
    (tmp_path / "3.png").unlink()
    with pytest.raises(UserError, match="expected 4 pictures or more to compare networks by, found 3 in"):
        read_sample(tmp_path, size=8)


def test_tables_that_do_not_fit(explained: Path, tmp_path: Path) -> None:
    def refused(text: str, sentence: str, split: str = "") -> None:
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(UserError, match=sentence):
            read_sample(explained / "pictures", size=8, labels=f"{tmp_path / 't.csv'}{split}")

    refused(
        "path,class\np0/0.png,a\n", "expected a column label and one out of path, image_id or slice_id, found path, c"
    )
    refused("path,label\np0/0.png,a\nnone.png,b\n", "1 of 2 pictures of .* are not in .*, first none.png: paths are")
    refused("path,label\np0/0.png,a\n", "expected a column split for 'test', found path, label", split=":test")
    refused("path,label\np0/0.png,a\np0/0.png,b\n", "t.csv, row 2: p0/0.png is in row 1 already: take one of them away")
    refused("path,label\np0/0.png,a\np0/1.png,\n", "t.csv, row 2: label is empty: fill it in or take the row away")
    refused("path,label,patient\np0/0.png,a,p\np0/1.png,b,\n", "row 2: patient is empty: fill it in")
    refused("path,label\n,a\n", "row 1: path is empty: fill it in")
    refused("path,label,split\nx,a,a\np0/0.png,,b\n", "t.csv, row 2: label is empty", split=":b")
    refused("path,label,split\np0/0.png,a,test\n", "expected one of the splits test, none was named")
    with pytest.raises(UserError, match="expected labels out of x or y, the classes of the classifier, found 'bright'"):
        read_sample(explained / "pictures", size=8, labels=explained / "plain.csv").classes(["x", "y"])
    with pytest.raises(UserError, match=r"expected pictures in a folder for each class"):
        read_sample(explained / "pictures" / "p0", size=8, labels="folders")
