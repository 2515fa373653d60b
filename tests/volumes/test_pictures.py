"""Pictures in files: modes, channels, DICOM, what is listed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import SecondaryCaptureImageStorage

from lessismore_transforms.volumes import find_volumes, read_slices
from lessismore_transforms.volumes.pictures import (
    PictureHeader,
    list_pictures,
    patient_id,
    read_header,
    read_image,
    read_picture,
    with_channels,
)

GREY = np.array([[0, 10, 200], [255, 7, 99]], np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=2)
ALPHA = np.array([[0, 128, 255], [255, 0, 1]], np.uint8)


def luma(colour: np.ndarray) -> np.ndarray:
    """ITU-R 601-2, rounded."""
    return np.floor(colour.astype(np.float64) @ [0.299, 0.587, 0.114] + 0.5)


def saved(folder: Path, image: Image.Image, **options) -> Path:
    image.save(folder / "a.png", **options)
    return folder / "a.png"


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (Image.fromarray(GREY), np.stack([GREY] * 3, axis=2)),
        (Image.fromarray(COLOUR), COLOUR),
        (Image.fromarray(np.dstack([COLOUR, ALPHA])), COLOUR),  # not blended: the alpha channel is dropped
        (Image.fromarray(np.dstack([GREY, ALPHA])), np.stack([GREY] * 3, axis=2)),
        (Image.fromarray(GREY > 100), np.stack([255 * (GREY > 100)] * 3, axis=2)),
        (Image.fromarray(np.where(GREY > 0, GREY * np.uint16(257), 0)), np.stack([GREY] * 3, axis=2)),
    ],
    ids=["L", "RGB", "RGBA", "LA", "1", "I;16"],
)
def test_modes(tmp_path, image, colour):
    path = saved(tmp_path, image)
    np.testing.assert_array_equal(read_picture(path, 3), colour)
    grey = read_picture(path)
    assert grey.dtype == np.uint8
    np.testing.assert_allclose(grey, luma(colour), atol=1)  # Pillow counts in 16-bit fixed point
    np.testing.assert_array_equal(read_image(path, 3), colour)
    grey_values = image.mode not in ("RGB", "RGBA")
    assert read_header(path) == PictureHeader(*GREY.shape, channels=1 if grey_values else 3)


def test_a_tiff_is_read_by_its_name_alone(tmp_path):
    """As a picture; among the slices of volumes there is none."""
    Image.fromarray(COLOUR).save(tmp_path / "a_1.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read_image(tmp_path / "a_1.tif", 3), COLOUR)
    assert read_header(tmp_path / "a_1.tif") == PictureHeader(*GREY.shape, channels=3)
    assert list_pictures(tmp_path) == list_pictures(tmp_path, with_dicom=True) == []
    assert list_pictures(tmp_path, with_tiff=True) == ["a_1.tif"]
    (tmp_path / "a_1.tif").rename(tmp_path / "a_1.png")
    with pytest.raises(ValueError, match=r"a_1.png cannot be read as an image \(.*: no PNG or JPEG\)"):
        read_image(tmp_path / "a_1.png")
    assert find_volumes(tmp_path, patterns=["numbered"]).volumes == []


def test_a_palette_is_looked_up_transparent_or_not(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 9, 9, 9])
    expected = np.array([[255, 0, 0], [0, 255, 0], [9, 9, 9]], np.uint8)[[[0, 1, 2], [2, 1, 0]]]
    np.testing.assert_array_equal(read_picture(saved(tmp_path, image), 3), expected)
    np.testing.assert_array_equal(read_picture(saved(tmp_path, image, transparency=1), 3), expected)


def test_a_jpeg_named_png_is_read_as_stored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees", which neither the released code nor the hashes do
    image = Image.fromarray(np.full((4, 8), 100, np.uint8))
    path = saved(tmp_path, image, format="JPEG", exif=exif)
    assert read_picture(path).shape == (4, 8)
    np.testing.assert_allclose(read_picture(path), 100, atol=1)


def test_with_channels():
    np.testing.assert_array_equal(with_channels(GREY, 1), GREY)
    np.testing.assert_array_equal(with_channels(GREY, 3), np.stack([GREY] * 3, axis=2))
    np.testing.assert_array_equal(with_channels(COLOUR, 3), COLOUR)
    np.testing.assert_allclose(with_channels(COLOUR, 1), luma(COLOUR), atol=1)


def test_unreadable_files_are_told(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"a.png cannot be read as an image .*truncated"):
        read_picture(path, 3)
    for name, kind in (("no.png", "an image"), ("no.dcm", "a DICOM picture")):
        with pytest.raises(ValueError, match=f"{name} cannot be read as {kind} .*No such file"):
            read_image(tmp_path / name)
    (tmp_path / "b.dcm").write_bytes(b"text, no DICOM")
    with pytest.raises(ValueError, match=r"b.dcm cannot be read as a DICOM picture"):
        read_image(tmp_path / "b.dcm")


def slice_file(small_data: Path) -> Path:
    return sorted(small_data.rglob("*.dcm"))[5]


def test_a_dicom_slice_in_a_window(small_data):
    path = slice_file(small_data)
    volumes = [volume for volume in find_volumes(small_data).volumes if volume.format == "dicom"]
    places = {s.path: (v, i) for v in volumes for i, s in enumerate(v.slices)}
    volume, index = places[path.relative_to(small_data).as_posix()]
    hu = next(s.hu for s in read_slices(volume, small_data) if s.index == index).astype(np.float64)  # upright
    window = np.rint(np.clip(255 * (hu - 0) / 80, 0, 255))
    np.testing.assert_array_equal(read_image(path, window="brain"), window)
    np.testing.assert_array_equal(read_image(path, window="40/80"), window)
    np.testing.assert_array_equal(read_image(path, 3, window="brain"), np.stack([window] * 3, axis=2))
    low = np.maximum(hu, -1024)
    np.testing.assert_array_equal(read_image(path), np.rint(255 * (low - low.min()) / (low.max() - low.min())))
    with pytest.raises(ValueError, match="expected a window as LEVEL/WIDTH"):
        read_image(path, window="brian")


def changed(source: Path, target: Path, **elements) -> Path:
    dataset = pydicom.dcmread(source)
    for name, value in elements.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(target)
    return target


def test_dicom_that_is_no_slice_of_a_volume(small_data, tmp_path):
    path = slice_file(small_data)
    stored = pydicom.dcmread(path).pixel_array.astype(np.float64)
    stretched = np.rint(255 * (stored - stored.min()) / (stored.max() - stored.min()))
    intercept = float(pydicom.dcmread(path).RescaleIntercept)

    placeless = changed(path, tmp_path / "placeless.dcm", ImagePositionPatient=None)  # CT in HU all the same
    expected = np.rint(np.clip(255 * (stored + intercept) / 80, 0, 255))
    np.testing.assert_array_equal(read_image(placeless, window="brain"), expected)
    other = changed(path, tmp_path / "mr.dcm", Modality="MR")
    np.testing.assert_array_equal(read_image(other, window="brain"), stretched)
    inverted = changed(path, tmp_path / "cr.dcm", Modality="CR", PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_image(inverted, window="brain"), 255 - stretched)
    no_hu = changed(path, tmp_path / "raw.dcm", RescaleIntercept=None, RescaleSlope=None)
    assert np.ptp(read_image(no_hu, window="brain")) == 255
    np.testing.assert_array_equal(np.sort(read_image(no_hu, window="brain"), axis=None), np.sort(stretched, axis=None))


@pytest.mark.parametrize(
    ("directions", "turned"),
    [
        ([1, 0, 0, 0, 1, 0], False),
        ([0, 1, 0, 1, 0, 0], True),
        ([0, -1, 0, 0, 0, -1], False),
        ([0, 0, -1, 0, 1, 0], True),
    ],
)
def test_the_size_of_dicom_is_that_of_the_picture_that_is_read(small_data, tmp_path, directions, turned):
    source = slice_file(small_data)
    stored = pydicom.dcmread(source).pixel_array[:30, :40]
    cut = {"Rows": 30, "Columns": 40, "PixelData": stored.tobytes(), "PatientID": "someone"}
    path = changed(source, tmp_path / "a.dcm", ImageOrientationPatient=directions, **cut)
    expected = (40, 30) if turned else (30, 40)
    assert read_image(path).shape == expected
    assert read_header(path) == PictureHeader(*expected, channels=1, patient="someone")
    as_stored = changed(path, tmp_path / "b.dcm", ImagePositionPatient=None)  # no slice: it is not turned
    assert read_image(as_stored).shape == (30, 40)
    assert read_header(as_stored) == PictureHeader(30, 40, channels=1, patient="someone")


def test_dicom_in_colour_and_with_frames(small_data, tmp_path):
    elements = {"Modality": "OT", "SOPClassUID": SecondaryCaptureImageStorage, "Rows": 2, "Columns": 3}
    elements |= {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0}
    colour = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}
    path = changed(slice_file(small_data), tmp_path / "c.dcm", **elements, **colour, PixelData=COLOUR.tobytes())
    np.testing.assert_array_equal(read_image(path, 3), COLOUR)
    np.testing.assert_allclose(read_image(path), luma(COLOUR), atol=1)
    frames = {"NumberOfFrames": 2, "PixelData": GREY.tobytes() * 2}
    path = changed(slice_file(small_data), tmp_path / "f.dcm", **elements, **frames)
    with pytest.raises(ValueError, match=r"expected one picture, found an array of shape \(2, 2, 3\)"):
        read_image(path)


def test_patient_id(small_data, tmp_path):
    path = slice_file(small_data)
    assert patient_id(path) == str(pydicom.dcmread(path).PatientID)
    assert patient_id(changed(path, tmp_path / "a.dcm", PatientID="")) == ""
    (tmp_path / "b.dcm").write_bytes(b"no DICOM")
    assert patient_id(tmp_path / "b.dcm") == ""


def test_listed_files(tmp_path, small_data):
    image = Image.fromarray(GREY)
    for name in ("b/2.PNG", "b/10.jpg", "a.jpeg", ".hidden/x.png", "b/._2.png", "__MACOSX/b/2.png", "b-1/z.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        image.save(tmp_path / name, format="PNG")
    (tmp_path / "b" / "notes.txt").write_text("128 bytes and more " * 10)
    (tmp_path / "b" / "folder.png").mkdir()
    dicom = slice_file(small_data).read_bytes()
    for name in ("b/1.DCM", "b/1.2.840", "b/plain", "DICOMDIR"):
        (tmp_path / name).write_bytes(dicom)
    assert list_pictures(tmp_path) == ["a.jpeg", "b/10.jpg", "b/2.PNG", "b-1/z.png"]
    assert list_pictures(tmp_path, with_dicom=True) == [
        "a.jpeg", "b/1.2.840", "b/1.DCM", "b/10.jpg", "b/2.PNG", "b/plain", "b-1/z.png",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"expected a folder of pictures at .*, found nothing"):
        list_pictures(tmp_path / "none")
    with pytest.raises(ValueError, match="found a file"):
        list_pictures(tmp_path / "a.jpeg")


def test_real_pictures_of_every_mode(real_data):
    """Colour agrees with grey on real files, and with what Pillow makes of each mode."""
    modes = {}
    for path in sorted((real_data / "head_ct_hemorrhage").rglob("*.png")):
        with Image.open(path) as image:
            if modes.setdefault(image.mode, path) == path:
                raw = np.asarray(image)
                colour = read_picture(path, 3)
                expected = raw[..., :3] if raw.ndim == 3 else np.stack([raw] * 3, axis=2)
                np.testing.assert_array_equal(colour, expected)
                np.testing.assert_allclose(read_picture(path), luma(colour), atol=1)
    assert set(modes) == {"L", "RGB", "RGBA"}
