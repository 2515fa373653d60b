from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lessismore_transforms.bundle.inference import Pictures
from lessismore_transforms.phantom import write_demo_data
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.pretraining.embed import Prepared
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.volumes.pictures import read_image


def write_pictures(folder: Path) -> dict[str, np.ndarray]:
    """Pictures of many kinds below a folder, with the grey values that they hold, in the order of their paths."""
    grey = np.arange(96, dtype=np.uint8).reshape(8, 12)
    colour = np.stack([grey, grey, grey], axis=-1)
    palette = Image.fromarray(95 - grey, mode="P")
    palette.putpalette([value for step in range(96) for value in [95 - step] * 3])
    (folder / "b" / "deeper").mkdir(parents=True)
    Image.fromarray(grey).save(folder / "b" / "deeper" / "Grey, 100 %.PNG")
    Image.fromarray(colour).save(folder / "a_colour.png")
    Image.fromarray(np.dstack([colour, 255 - grey])).save(folder / "b_alpha.png")
    Image.fromarray(np.dstack([grey, 255 - grey]), mode="LA").save(folder / "c_grey_alpha.png")
    palette.save(folder / "d_palette.png")
    Image.fromarray(grey > 40).save(folder / "e_bits.png")
    Image.fromarray(grey.astype(np.uint16) * 600).save(folder / "f_deep.png")
    Image.fromarray(np.full((8, 12), 90, np.uint8)).save(folder / "g_jpeg_inside.png", format="JPEG")
    Image.fromarray(np.full((8, 12, 3), 90, np.uint8)).save(folder / "h.jpeg")
    (folder / "notes.txt").write_text("no picture")
    (folder / "folder.png").mkdir()
    deep = np.rint(grey / 95 * 255).astype(np.uint8)
    flat = np.full((8, 12), 90, np.uint8)
    expected = {"a_colour.png": grey, "b/deeper/Grey, 100 %.PNG": grey, "b_alpha.png": grey, "c_grey_alpha.png": grey}
    return expected | {
        "d_palette.png": grey,
        "e_bits.png": (grey > 40) * np.uint8(255),
        "f_deep.png": deep,
        "g_jpeg_inside.png": flat,
        "h.jpeg": flat,
    }


def test_pictures_of_a_folder_come_by_path_and_grey(tmp_path: Path) -> None:
    expected = write_pictures(tmp_path)
    pictures = Pictures(tmp_path)
    assert pictures.names == list(expected)
    for item, (name, grey) in zip(map(pictures.__getitem__, range(len(pictures))), expected.items(), strict=True):
        assert (item["image_id"], item["error"], item["image"].dtype) == (name, "", torch.uint8)
        np.testing.assert_array_equal(item["image"], grey[None], err_msg=name)


def test_pictures_come_in_colour_and_dicom_in_a_window_where_wanted(small_data: Path, tmp_path: Path) -> None:
    colour = np.arange(96, dtype=np.uint8).reshape(4, 8, 3)
    Image.fromarray(colour).save(tmp_path / "a.tif")
    (tmp_path / "b.png").write_text("no picture")
    dicom = next(path for path in sorted(small_data.rglob("*")) if path.suffix == ".dcm")
    shutil.copyfile(dicom, tmp_path / "c.dcm")
    assert Pictures(tmp_path).names == ["a.tif", "b.png"]
    pictures = Pictures(tmp_path, channels=3, dicom=True, window="40/80")
    coloured, damaged, windowed = (pictures[index] for index in range(3))
    np.testing.assert_array_equal(coloured["image"], colour.transpose(2, 0, 1))
    assert damaged["image"].tolist() == [[[0]]] * 3
    expected = read_image(dicom, window="40/80")
    assert 0 < (expected == 255).mean() < 1
    np.testing.assert_array_equal(windowed["image"], np.broadcast_to(expected, (3, *expected.shape)))
    for settings, sentence in (({"channels": 2}, "found channels 2"), ({"window": "bran"}, "found 'bran'")):
        with pytest.raises(ValueError, match=sentence):
            Pictures(tmp_path, **settings)


def test_a_picture_that_cannot_be_read_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 9), 200, np.uint8)).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("no picture")
    items = [Pictures(tmp_path, transform=Prepared(4, 0.0, 1.0))[index] for index in range(4)]
    assert [item["image_id"] for item in items] == ["cut.png", "empty.jpg", "good.png", "text.png"]
    assert [bool(item["error"]) for item in items] == [True, True, False, True]
    assert {item["image"].shape for item in items} == {(3, 4, 4)}
    torch.testing.assert_close(items[2]["image"], torch.full((3, 4, 4), 200 / 255))


def test_pictures_of_outputs_are_the_kept_slices(small_data: Path, tmp_path: Path) -> None:
    write_demo_data(tmp_path / "data", patients=1, slices=8, size=32, seed=50)
    outputs = [tmp_path / "one", tmp_path / "two"]
    for output, data, threshold in zip(outputs, (small_data, tmp_path / "data"), (12, 1), strict=True):
        reduce_dataset(data, output, Settings(Target.of(threshold=threshold)), workers=0)
    for source in (outputs[0], str(outputs[1]), outputs):
        expected, pictures = SliceSelectionDataset(source), Pictures(source)
        assert len(pictures) == len(expected) > 3
        for index in (0, len(expected) // 2, len(expected) - 1):
            assert pictures[index]["image_id"] == expected[index]["slice_id"]
            np.testing.assert_array_equal(pictures[index]["image"], expected[index]["image"])
    with pytest.raises(ValueError, match="no selection"):
        Pictures(outputs[0], "hash3")


def test_no_pictures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match=f"expected PNG, JPEG or TIFF files or an output of `reduce` in {folder}"):
            Pictures(folder)
