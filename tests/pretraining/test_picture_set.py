"""Folders of pictures as what a pre-training reads: lists, channels, what is refused, what is written down."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from lessismore_transforms.classification.examples import SPLITS, Example, Examples
from lessismore_transforms.classification.leakage import check_leakage
from lessismore_transforms.errors import ManifestError, UserError
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pretraining.sampling import make_order
from lessismore_transforms.pretraining.settings import PretrainingSettings
from lessismore_transforms.pretraining.training_set import (
    WritePictures,
    described_set,
    grey_mean,
    grey_std,
    open_dataset,
    slices,
    smallest,
)
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.patients import hash_patient, load_key
from lessismore_transforms.reduced.picture_set import COLUMNS, PictureSet
from lessismore_transforms.reduction.hashing import dhash
from lessismore_transforms.reduction.intensity import min_max_uint8
from lessismore_transforms.volumes.pictures import list_pictures, read_header, read_image


def picture(seed: int, channels: int = 1, side: int = 64) -> np.ndarray:
    """Smooth noise, another for each seed, of `side` rows and a few columns more."""
    smooth = gaussian_filter(np.random.default_rng(seed).normal(size=(side, side + 16, channels)), (3, 3, 0))
    return np.uint8(255 * (smooth - smooth.min()) / np.ptp(smooth)).squeeze()


def save(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture(scope="module")
def reduced(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("reduced") / "out"
    reduce_dataset(small_data, place, workers=0)
    return place


@pytest.fixture
def colour(tmp_path: Path) -> Path:
    """Six colour pictures of two folders."""
    for number in range(6):
        save(tmp_path / "colour" / f"{'ab'[number % 2]}" / f"{number}.png", picture(number, 3, 60 + number))
    return tmp_path / "colour"


def test_items_of_every_kind_of_file(tmp_path: Path, small_data: Path) -> None:
    folder = tmp_path / "grey"
    one, two, three = (picture(seed) for seed in range(3))
    save(folder / "a" / "one.png", one)
    save(folder / "a" / "two.JPG", two, format="JPEG")
    save(folder / "b.tiff", three)
    save(folder / "c.TIF", three.astype(np.uint16) * 257, format="TIFF", compression="tiff_lzw")
    dicom = sorted(small_data.rglob("*.dcm"))[5]
    (folder / "plain").write_bytes(dicom.read_bytes())
    dataset = PictureSet(folder)
    assert dataset.slice_ids == ["a/one.png", "a/two.JPG", "b.tiff", "c.TIF", "plain"]
    assert (len(dataset), dataset.channels) == (5, 1)
    items = [dataset[index] for index in range(len(dataset))]
    assert [item["slice_id"] for item in items] == dataset.slice_ids
    assert {item["image"].dtype for item in items} == {torch.uint8}
    np.testing.assert_array_equal(items[0]["image"], one[None])
    np.testing.assert_array_equal(items[2]["image"], three[None])
    np.testing.assert_array_equal(items[3]["image"], min_max_uint8(three)[None])  # more than 8 bits are stretched
    np.testing.assert_array_equal(items[4]["image"], read_image(dicom)[None])
    assert dataset.patients == ["", "", "", "", hash_patient(str(pydicom.dcmread(dicom).PatientID), load_key())]
    assert list_pictures(folder, with_dicom=True) == ["a/one.png", "a/two.JPG", "plain"]  # TIFF only where asked for
    again = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    np.testing.assert_array_equal(again[1]["image"], items[1]["image"])


def test_colour_stays_colour(colour: Path) -> None:
    dataset = PictureSet(colour)
    item = dataset[3]  # a/0, a/2, a/4, b/1
    assert item["slice_id"] == "b/1.png"
    np.testing.assert_array_equal(item["image"], picture(1, 3, 61).transpose(2, 0, 1))
    assert item["image"].is_contiguous()
    assert dataset.smallest() == smallest(dataset) == (60, 76)
    pixels = [np.float64(dataset[index]["image"]).reshape(3, -1) / 255 for index in range(6)]
    together = np.concatenate(pixels, axis=1)
    assert grey_mean(dataset) == pytest.approx(together.mean(1).tolist(), abs=1e-6)
    assert grey_std(dataset) == pytest.approx(together.std(1).tolist(), abs=1e-6)
    hashes, volumes = slices(dataset)
    grey = np.asarray(Image.fromarray(picture(1, 3, 61)).convert("L"))
    assert hashes[3].numpy().view(np.uint64) == dhash(min_max_uint8(grey))
    assert volumes.tolist() == [0, 0, 0, 1, 1, 1]
    assert (hashes.dtype, volumes.dtype) == (torch.int64, torch.int64)


def test_few_of_many_pictures_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lessismore_transforms.reduced.picture_set._MOST_MEASURED", 3)
    for number in range(5):
        save(tmp_path / f"{number}.png", np.uint8([[0, 50 * number]]))
    assert PictureSet(tmp_path).mean_std()[0] == [round((0 + 100 + 200) / 6 / 255, 6)]  # the first, middle and last
    save(tmp_path / "flat" / "0.png", np.full((9, 9), 7, np.uint8))
    with pytest.raises(UserError, match=r"expected pictures that show something in .*flat"):
        PictureSet(tmp_path / "flat").mean_std()


def test_channels_are_those_of_the_files_or_given(colour: Path) -> None:
    save(colour / "grey.png", picture(9))
    palette = Image.fromarray(picture(9), "L").convert("P")
    palette.save(colour / "palette.png")
    assert read_header(colour / "palette.png").channels == 1
    with pytest.raises(
        UserError, match=r"all as colour, found 2 grey \(first grey.png\) and 6 in colour \(first a/0.p"
    ):
        PictureSet(colour)
    assert {PictureSet(colour, channels=3)[index]["image"].shape[0] for index in range(8)} == {3}
    assert {PictureSet(colour, channels=1)[index]["image"].shape[0] for index in range(8)} == {1}
    with pytest.raises(UserError, match=r"expected channels of 1 \(grey\) or 3 \(colour\), found 2"):
        PictureSet(colour, channels=2)


def test_grey_that_is_stored_in_colour_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "grey.png", np.stack([picture(9)] * 3, axis=2))
    assert len(grey_mean(PictureSet(tmp_path))) == 3
    assert [record.getMessage() for record in caplog.records] == [
        f"the pictures of {tmp_path} are stored in colour but show grey: --channels 1 gives the same at a third of the "
        "cost"
    ]
    assert len(grey_mean(PictureSet(tmp_path, channels=1))) == 1
    save(tmp_path / "colour.png", picture(9, 3))
    grey_mean(PictureSet(tmp_path))
    assert len(caplog.records) == 1


def test_lists(colour: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.txt").write_text("\ufeffb/5.png\r\n./a/0.png\n\n", encoding="utf-8")
    assert PictureSet(colour, tmp_path / "train.txt").slice_ids == ["b/5.png", "a/0.png"]
    (colour / "inside.txt").write_text("a/2.png")
    monkeypatch.chdir(tmp_path)
    assert PictureSet(colour, "train.txt").slice_ids == ["b/5.png", "a/0.png"]
    assert PictureSet("colour", "inside.txt").slice_ids == ["a/2.png"]
    with pytest.raises(UserError, match=r"expected a list of pictures, .* found no file other.txt, neither"):
        PictureSet(colour, "other.txt")
    with pytest.raises(UserError, match=r"expected a CSV file with a column split for 'train', found train.txt"):
        PictureSet(colour, "train.txt:train")
    (tmp_path / "train.txt").write_text("\n")
    with pytest.raises(UserError, match=r"train.txt is empty: expected one path"):
        PictureSet(colour, "train.txt")


@pytest.mark.parametrize("patient", ["patient", "patient_id", "Patient_ID"])
def test_tables(colour: Path, tmp_path: Path, patient: str) -> None:
    table = tmp_path / "t.csv"
    table.write_text(f"{patient},path,split\np,a/0.png,train\nq,b/1.png,test\np,b/3.png,train\n,a/2.png,train\n")
    dataset = PictureSet(colour, f"{table}:train")
    assert dataset.slice_ids == ["a/0.png", "b/3.png", "a/2.png"]
    assert slices(dataset)[1].tolist() == [1, 1, 0]  # the third by its folder
    assert dataset.patients == [hash_patient("p", load_key())] * 2 + [""]
    assert PictureSet(colour, f"{table}:test").slice_ids == ["b/1.png"]
    with pytest.raises(UserError, match=r"t.csv: expected one of the splits test, train, none was named: give "):
        PictureSet(colour, table)
    with pytest.raises(UserError, match="expected one of the splits test, train, found no 'val'"):
        PictureSet(colour, f"{table}:val")
    table.write_text("path,group\na/0.png,g\nb/1.png,g\n")
    assert slices(PictureSet(colour, table))[1].tolist() == [0, 0]
    with pytest.raises(UserError, match="expected a column split for 'train', found path, group"):
        PictureSet(colour, f"{table}:train")
    table.write_text("name\na/0.png\n")
    with pytest.raises(UserError, match="expected a column path, found name"):
        PictureSet(colour, table)


@pytest.mark.parametrize(
    "path", ["../outside.png", "{root}/outside.png", "a/../../outside.png", "a/link.png", "out/o.png"]
)
def test_paths_do_not_leave_the_folder(colour: Path, tmp_path: Path, path: str) -> None:
    save(tmp_path / "outside.png", picture(0, 3))
    save(tmp_path / "elsewhere" / "o.png", picture(0, 3))
    (colour / "a" / "link.png").symlink_to(tmp_path / "outside.png")
    (colour / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "list.txt").write_text(path.format(root=tmp_path))
    with pytest.raises(
        UserError, match=r"expected (paths of .*list.txt relative to|files in .* a link that leads out)"
    ):
        PictureSet(colour, tmp_path / "list.txt")
    with pytest.raises(UserError, match=r"found a/link.png, a link that leads out of it"):
        PictureSet(colour)


def test_what_cannot_be_used_is_named_before_anything_is_read(colour: Path, tmp_path: Path) -> None:
    (colour / os.fsdecode(b"\xff.png")).write_bytes((colour / "a" / "0.png").read_bytes())
    with pytest.raises(UserError, match=r"expected names of printable characters in .* found '.udcff.png': rename the"):
        PictureSet(colour)
    (colour / os.fsdecode(b"\xff.png")).unlink()
    names = tmp_path / "list.txt"
    names.write_text("a/0.png\na/7.png\na/8.png\n")
    with pytest.raises(UserError, match=r"2 of 3 pictures of .*list.txt are missing in .*colour, first a/7.png"):
        PictureSet(colour, names)
    names.write_text("a/0.png\na//0.png\n")
    with pytest.raises(UserError, match=r"expected each picture once, found a/0.png of .*list.txt twice"):
        PictureSet(colour, names)
    pages = [Image.fromarray(picture(seed)) for seed in range(2)]
    pages[0].save(colour / "pages.tif", save_all=True, append_images=pages[1:])
    (colour / "text.dcm").write_text("no picture at all")
    (colour / "z.png").write_text("nor this")
    sentence = (
        r"3 of 9 pictures of .* are not to be used, first .*pages.tif cannot be read as an image \(an animation or"
    )
    with pytest.raises(UserError, match=sentence):
        PictureSet(colour)
    (colour / "pages.tif").write_text("no TIFF")
    with pytest.raises(UserError, match=r"pages.tif cannot be read as an image \(.*: no TIFF that can be read\)"):
        PictureSet(colour)
    (colour / "pages.tif").unlink()
    with pytest.raises(UserError, match=r"first .*text.dcm cannot be read as an image \(there is no picture in it\)"):
        PictureSet(colour)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ManifestError, match=r"a finished `reduce`, or PNG, JPEG, TIFF or DICOM files in .*empty, found n"
    ):
        PictureSet(tmp_path / "empty")


def test_several_frames_are_refused(tmp_path: Path, small_data: Path) -> None:
    dataset = pydicom.dcmread(sorted(small_data.rglob("*.dcm"))[5])
    dataset.NumberOfFrames = 2
    dataset.save_as(tmp_path / "f.dcm")
    with pytest.raises(UserError, match=r"f.dcm cannot be read as an image \(expected one picture, found 2 frames\)"):
        PictureSet(tmp_path)


def test_identity_tells_pictures_order_and_channels_apart(colour: Path, tmp_path: Path) -> None:
    identity = PictureSet(colour).identity()
    assert len(identity) == 64
    assert PictureSet(colour).identity() == identity
    (tmp_path / "list.txt").write_text("\n".join(PictureSet(colour).slice_ids))
    assert PictureSet(colour, tmp_path / "list.txt").identity() == identity  # whatever names them
    (tmp_path / "list.txt").write_text("\n".join(PictureSet(colour).slice_ids[::-1]))
    others = [PictureSet(colour, tmp_path / "list.txt").identity(), PictureSet(colour, channels=1).identity()]
    save(colour / "a" / "0.png", picture(77, 3, 60))
    others.append(PictureSet(colour).identity())
    assert len({identity, *others}) == 4


def test_which_kind_a_folder_is(colour: Path, tmp_path: Path, reduced: Path) -> None:
    assert isinstance(open_dataset(colour), PictureSet)
    assert isinstance(open_dataset([str(colour)]), PictureSet)
    dataset = open_dataset(reduced)
    assert isinstance(dataset, SliceSelectionDataset)
    assert described_set(dataset) == {}
    assert len(grey_mean(dataset)) == len(grey_std(dataset)) == 1
    assert len(slices(dataset)[0]) == len(dataset)
    assert min(smallest(dataset)) > 0
    for settings in ({"split": "train.txt"}, {"channels": 3}):
        with pytest.raises(UserError, match=rf"expected one folder of pictures for {next(iter(settings))}"):
            open_dataset(reduced, **settings)
    with pytest.raises(UserError, match=r"for selection 'hash3', found none in .*colour"):
        open_dataset(colour, "hash3")
    (colour / "parts").mkdir()
    (colour / "parts" / "settings.json").touch()  # an unfinished reduction that wrote pictures is no folder of pictures
    with pytest.raises(ManifestError, match=r"manifest.json is missing: expected the output folder of a finished"):
        open_dataset(colour)


def test_pictures_beside_files_of_any_names_are_no_reduction(colour: Path) -> None:
    expected = PictureSet(colour).identity()
    for name in ("manifest.json", "manifest.csv", "run.jsonl"):
        (colour / name).write_text("of the user's own")
    for folder in ("parts", "selections", "store"):
        (colour / folder).mkdir()
    (colour / "a" / "0.png").rename(colour / "parts" / "0.png")
    dataset = open_dataset(colour)
    assert isinstance(dataset, PictureSet)
    assert "parts/0.png" in dataset.slice_ids
    (colour / "parts" / "0.png").rename(colour / "a" / "0.png")
    assert open_dataset(colour).identity() == expected


@pytest.mark.parametrize("lost", ["manifest.json", "manifest.csv", "selections/default.csv"])
def test_a_reduction_that_lost_a_file_is_no_folder_of_pictures(reduced: Path, tmp_path: Path, lost: str) -> None:
    output = shutil.copytree(reduced, tmp_path / "out")
    (output / lost).unlink()
    save(output / "0.png", picture(1))
    sentence = f"{lost} is missing" if lost.startswith("manifest") else "no selection 'default'"
    with pytest.raises(ManifestError, match=sentence):
        open_dataset(output)


# What a run leaves, and who reads it.


def run_on(folder: Path, run: Path, split: Path | None = None) -> Path:
    """What the trainer writes of the pictures."""
    dataset = PictureSet(folder, split)
    WritePictures(dataset, run)(None)  # type: ignore[arg-type]
    (run / "config.json").write_text(json.dumps({"trainer": described_set(dataset)}))
    return run


def unrelated() -> dict[str, np.ndarray]:
    names = [f"{split}/{number}" for split in SPLITS for number in (0, 1)]
    return {name: picture(100 + number) for number, name in enumerate(names)}


def evaluated(images: dict[str, np.ndarray]) -> Examples:
    examples = tuple(Example(name, int(name[-1]) % 2, name.split("/")[0]) for name in images)
    return Examples("Toy", ("no", "yes"), examples, list(images.values()), 1)


def shown(path: Path) -> str:
    """The name of a picture of pre-training in what an evaluation writes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def test_what_a_run_was_trained_on_is_read_again(colour: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("b/1.png\na/4.png\n")
    run = run_on(colour, tmp_path / "run", tmp_path / "list.txt")
    with (run / "pictures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    checksum = hashlib.sha256((colour / "b" / "1.png").read_bytes()).hexdigest()
    assert rows[0] == {"path": "b/1.png", "height": "61", "width": "77", "sha256": checksum, "patient": ""}
    told = json.loads((run / "config.json").read_text())["trainer"]["pictures"]
    assert told == {
        "file": "pictures.csv", "folder": str(colour.resolve()), "split": str(tmp_path / "list.txt"),
        "list": str((tmp_path / "list.txt").resolve()), "pictures": 2, "channels": 3, "patients": "not known",
        "identity": PictureSet.of_run(run).identity(),
    }  # fmt: skip
    assert PictureSet.of_run(run).slice_ids == ["b/1.png", "a/4.png"]
    save(colour / "b" / "1.png", picture(5, 3))
    with pytest.raises(ManifestError, match=r"b/1.png is not the file that .*run was trained on, by its checksum"):
        PictureSet.of_run(run)
    colour.rename(tmp_path / "moved")
    with pytest.raises(ManifestError, match=r"pictures.csv names pictures in .*colour, which is no folder here"):
        PictureSet.of_run(run)
    (run / "config.json").write_text("{}")
    with pytest.raises(ManifestError, match="found them damaged or of another version"):
        PictureSet.of_run(run)


def test_a_test_picture_that_was_trained_on_is_found(colour: Path, tmp_path: Path) -> None:
    seen = np.asarray(Image.fromarray(picture(1, 3, 61)).convert("L"))
    mirrored = np.asarray(Image.fromarray(picture(2, 3, 62)).convert("L"))[:, ::-1].copy()
    images = unrelated() | {"test/1": seen, "val/1": mirrored}
    examples = evaluated(images)
    for source in (colour, run_on(colour, tmp_path / "run"), [str(colour)]):
        found = check_leakage(examples, pretraining=source)
        table = found.table.set_index("kind")
        assert table.loc["exact", ["image_a", "image_b"]].tolist() == [shown(colour / "b" / "1.png"), "test/1"]
        assert table.loc["near", ["image_a", "image_b", "transform"]].tolist() == [
            shown(colour / "a" / "2.png"),
            "val/1",
            "flip_left_right",
        ]
        with pytest.raises(UserError, match=r"found pairs \(exact 1, near 1\)"):
            check_leakage(examples, policy="fail", pretraining=source)
    (tmp_path / "list.txt").write_text("a/0.png\nb/3.png\n")
    left_out = run_on(colour, tmp_path / "without", tmp_path / "list.txt")
    for source in (left_out, f"{colour}:{tmp_path / 'list.txt'}"):
        found = check_leakage(examples, policy="fail", pretraining=source)
        assert found.sentences == ()
        assert found.counts["pretraining_exact"] == found.counts["pretraining_near"] == 0
    save(colour / "grey.png", picture(9))  # what a training would ask about does not matter here
    both = check_leakage(examples, pretraining=[left_out, str(colour)]).table
    assert both["image_a"].tolist() == [shown(colour / "b" / "1.png"), shown(colour / "a" / "2.png")]


def test_copies_of_a_picture_have_names_of_their_own(colour: Path, tmp_path: Path) -> None:
    """In one folder and in several sources; a run names its pictures as their folder does."""
    first, second = (np.asarray(Image.fromarray(picture(n, 3, 60 + n)).convert("L")) for n in (0, 3))
    (colour / "c").mkdir()
    (colour / "c" / "again.png").write_bytes((colour / "a" / "0.png").read_bytes())
    run = run_on(colour, tmp_path / "run")
    compressed = first.copy()
    compressed[::7, ::5] ^= 3
    examples = evaluated(unrelated() | {"test/1": compressed, "val/1": second})
    one, other = shown(colour / "a" / "0.png"), shown(colour / "b" / "3.png")
    for source, times in ((colour, 2), (run, 2), ([str(colour), run], 4)):
        found = check_leakage(examples, pretraining=source).table.groupby("kind")["image_a"].agg(sorted)
        assert found["near"] == [one, *(f"{one}-{number}" for number in range(2, times + 1))]
        assert found["exact"] == [other]


def test_patients_that_were_trained_on_are_found(colour: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,patient\na/0.png,anna\na/2.png,berta\n")
    run = run_on(colour, tmp_path / "run", tmp_path / "t.csv")
    assert "anna" not in (run / "pictures.csv").read_text()
    plain = evaluated(unrelated())
    patient = {"test/0": "berta", "train/0": "carla"}
    examples = [
        replace(e, patient=hash_patient(patient[e.image_id], load_key())) if e.image_id in patient else e
        for e in plain.examples
    ]
    here = Examples(plain.task, plain.classes, tuple(examples), plain.images, 1)
    for source in (run, f"{colour}:{tmp_path / 't.csv'}"):
        table = check_leakage(here, pretraining=source).table
        assert table[["kind", "image_a", "image_b"]].values.tolist() == [
            ["patient", shown(colour / "a" / "2.png"), "test/0"]
        ]
    unknown = check_leakage(here, pretraining=colour)
    assert unknown.counts["pretraining_patients"] is None
    assert any("whether they share any is not known" in sentence for sentence in unknown.sentences)


def test_samplings_of_pictures(tmp_path: Path) -> None:
    """Pictures have no clusters and no places; those of one folder may be near by their hashes."""
    for number in range(6):
        noise = np.random.default_rng(number // 2).integers(0, 256, (40, 40), np.uint8)
        noise[0, 0] = number
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    with pytest.raises(UserError, match="which no selection put into clusters: take the sampling random or spread"):
        open_dataset(tmp_path, sampling="rotate")
    pictures = open_dataset(tmp_path)
    given = {"dataset_dir": tmp_path, "sampling": "spread", "batch_size": 3}
    with pytest.raises(UserError, match="which have no places: give --spread_bits 6 instead"):
        make_order(PretrainingSettings(**given), pictures, 2)
    order = make_order(PretrainingSettings(**given, spread_bits=6), pictures, 2)
    for epoch in range(4):
        first = order.draw(epoch)[:3]
        assert len({number // 2 for number in first}) == 3  # one of each pair in each batch


@pytest.mark.parametrize("name", ["a/ct.nii.gz", "ct.nrrd", "CT.MHA"])
def test_volumes_beside_pictures_are_refused_as_they_would_be_left_out(tmp_path: Path, name: str) -> None:
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    assert len(PictureSet(tmp_path)) == 1
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"found 1 volume in .*, such as {name}: `reduce .* --output_dir OUT` makes"):
        open_dataset(tmp_path)
    (tmp_path / "list.txt").write_text("a.png\n")
    assert len(PictureSet(tmp_path, "list.txt")) == 1  # a list names what is meant
