from __future__ import annotations

import csv
import itertools
from pathlib import Path

import imagehash
import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from lessismore_transforms.phantom import (
    LENGTH_MM,
    PhantomScan,
    body,
    phantom_scan,
    scan,
    write_demo_data,
    write_dicom,
    write_nifti,
)
from lessismore_transforms.volumes import volume_id


@pytest.fixture(scope="module")
def small() -> PhantomScan:
    return phantom_scan(3, slices=24, size=64)


def hash_distances(hu: np.ndarray) -> np.ndarray:
    """Hamming distances (S, S) of imagehash's dHash of the per-slice min-max image."""
    bits = []
    for image in hu.astype(np.float64):
        grey = np.rint(255 * (image - image.min()) / (image.max() - image.min())).astype(np.uint8)
        bits.append(imagehash.dhash(Image.fromarray(grey)).hash.ravel())
    return (np.array(bits)[:, None] != np.array(bits)[None]).sum(-1)


def exemplar_fraction(distances: np.ndarray, threshold: int) -> float:
    kept: list[int] = []
    for index, row in enumerate(distances):
        if all(row[other] > threshold for other in kept):
            kept.append(index)
    return len(kept) / len(distances)


def test_same_seed_same_voxels_other_seed_other_patient(small: PhantomScan) -> None:
    again = phantom_scan(3, slices=24, size=64)
    other = phantom_scan(4, slices=24, size=64)
    assert again.hu.tobytes() == small.hu.tobytes()
    assert (again.spacing_mm, again.origin_mm, again.lesion) == (small.spacing_mm, small.origin_mm, small.lesion)
    assert small.hu.shape == (24, 64, 64)
    assert small.hu.dtype == np.int16
    assert small.patient != other.patient
    assert np.mean(np.abs(small.hu.astype(int) - other.hu)) > 50


def test_slices_cover_the_same_body_whatever_their_number() -> None:
    thick, thin = phantom_scan(1, slices=20, size=64), phantom_scan(1, slices=60, size=64)
    assert thick.spacing_mm[0] * 20 == thin.spacing_mm[0] * 60 == LENGTH_MM
    assert thick.hu[7].astype(int) == pytest.approx(thin.hu[22].astype(int), abs=200)  # same height, other noise
    assert np.abs(thick.hu[7].astype(int) - thin.hu[22]).mean() < 25
    assert np.abs(thick.hu[7].astype(int) - thin.hu[31]).mean() > 40
    slab = phantom_scan(1, slices=5, size=64, slice_spacing_mm=1.0)
    middle = phantom_scan(1, slices=1, size=64)
    assert slab.spacing_mm[0] == 1.0
    assert slab.origin_mm[2] + 2 == middle.origin_mm[2]
    assert np.abs(slab.hu[2].astype(int) - middle.hu[0]).mean() < 25


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_body_is_plausible_and_the_right_way_round(seed: int) -> None:
    found = phantom_scan(seed, slices=36, size=96)
    assert [name for name, _ in itertools.groupby(found.region)] == ["pelvis", "abdomen", "chest"]
    assert found.hu.min() >= -1024
    assert 600 < found.hu.max() < 2000
    assert np.abs(found.hu[:, :6, :6].mean() + 1000) < 5  # air around
    trunk = found.hu[:, :64]  # without the table and its foam
    lung = ((trunk > -950) & (trunk < -700)).mean(axis=(1, 2))
    region = np.array(found.region)
    assert lung[region == "chest"].mean() > 0.08
    assert lung[region == "pelvis"].mean() < 0.03
    abdomen = trunk[region == "abdomen"]
    body_rows, bone_rows, bone_columns = (
        np.nonzero(abdomen > hu)[axis].mean() for hu, axis in ((-200, 1), (300, 1), (300, 2))
    )
    assert bone_rows > body_rows + 5  # the spine is behind ...
    assert abs(bone_columns - 47.5) < 5  # ... and in the middle
    liver_level = found.hu[np.flatnonzero(region == "chest")[0] - 2]
    organ = (liver_level > 55) & (liver_level < 140)
    organ[60:] = False  # above the muscles of the back
    assert organ[:, :48].sum() > 1.3 * organ[:, 48:].sum()  # the liver is on the right: low columns


def test_neighbours_are_near_copies_and_distant_slices_are_not() -> None:
    distances = hash_distances(phantom_scan(5, slices=240, size=64).hu)  # 2 mm
    assert np.diag(distances, 1).max() <= 6
    assert np.median(np.diag(distances, 30)) >= 10  # 60 mm
    assert 0.08 <= exemplar_fraction(distances[::2, ::2], 6) <= 0.25  # the default 120 slices


@pytest.mark.parametrize("seed", [0, 1])
def test_a_slice_is_labelled_exactly_where_a_lesion_shows(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ill = phantom_scan(seed, slices=60, size=128)
    monkeypatch.setattr(scan, "draw_body", lambda seed: body.draw_body(seed)._replace(lesions=np.empty((0, 9))))
    healthy = phantom_scan(seed, slices=60, size=128)
    assert not any(healthy.lesion)
    changed = np.abs(ill.hu.astype(int) - healthy.hu) > 20
    assert (changed.any(axis=(1, 2)) == np.array(ill.lesion, bool)).all()
    assert changed.sum(axis=(1, 2))[np.array(ill.lesion, bool)].min() >= 4
    assert 0.02 < np.mean(ill.lesion) < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed >= 0"),
        ({"seed": 0, "slices": 0}, "slices >= 1"),
        ({"seed": 0, "size": 8}, "size >= 16"),
        ({"seed": 0, "slices": 100, "slice_spacing_mm": 5.0}, "found 100 \\* 5 mm"),
        ({"seed": 0, "slice_spacing_mm": -1.0}, "lower one of them"),
    ],
)
def test_impossible_scans_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        phantom_scan(**arguments)


@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "LAS", "ASR", "IPL"])
def test_nifti_holds_the_same_scan_in_any_axis_order(small: PhantomScan, tmp_path: Path, axcodes: str) -> None:
    image = nib.load(write_nifti(small, tmp_path / "new" / "ct.nii.gz", axcodes=axcodes))
    assert "".join(nib.aff2axcodes(image.affine)) == axcodes
    assert image.get_data_dtype() == np.int16
    data = np.asarray(image.dataobj)
    index = np.array(np.unravel_index(np.arange(0, data.size, 997), data.shape))
    left, posterior, head = (image.affine[:3, :3] @ index + image.affine[:3, 3:]) * [[-1], [-1], [1]]  # RAS to LPS
    x, y, z = small.origin_mm
    dz, dy, dx = small.spacing_mm
    expected = small.hu[
        np.rint((head - z) / dz).astype(int),
        np.rint((posterior - y) / dy).astype(int),
        np.rint((left - x) / dx).astype(int),
    ]
    assert (data[tuple(index)] == expected).all()


def test_nifti_bytes_depend_on_the_scan_alone(small: PhantomScan, tmp_path: Path) -> None:
    one, two = (write_nifti(small, tmp_path / name).read_bytes() for name in ("a.nii.gz", "b.nii.gz"))
    assert one == two
    plain = nib.load(write_nifti(small, tmp_path / "c.nii"))
    assert (np.asarray(plain.dataobj) == small.hu.transpose(2, 1, 0)).all()


def test_nifti_refuses_what_it_cannot_write(small: PhantomScan, tmp_path: Path) -> None:
    for axcodes in ("LPX", "LRS", "LP", "LPSS"):
        with pytest.raises(ValueError, match="name each axis once"):
            write_nifti(small, tmp_path / "ct.nii", axcodes=axcodes)
    with pytest.raises(ValueError, match="ending in"):
        write_nifti(small, tmp_path / "ct.mha")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("intercept", "signed"), [(-1024, 0), (0, 1), (-2000, 0)])
def test_dicom_gives_back_every_hu(small: PhantomScan, tmp_path: Path, intercept: int, signed: int) -> None:
    for index, path in enumerate(write_dicom(small, tmp_path, intercept=intercept)):
        dataset = pydicom.dcmread(path)
        hu = dataset.pixel_array.astype(int) * int(dataset.RescaleSlope) + int(dataset.RescaleIntercept)
        assert (hu == small.hu[index]).all()
        assert dataset.PixelRepresentation == signed


def test_dicom_headers_place_the_slices_as_the_nifti_affine(small: PhantomScan, tmp_path: Path) -> None:
    paths = write_dicom(small, tmp_path / "series")
    headers = [pydicom.dcmread(path) for path in paths]
    affine = nib.load(write_nifti(small, tmp_path / "ct.nii")).affine
    for index, header in enumerate(headers):
        world = affine @ [0, 0, index, 1]
        assert header.ImagePositionPatient == pytest.approx([-world[0], -world[1], world[2]], abs=1e-3)
    assert headers[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert [headers[0].PixelSpacing[1], headers[0].PixelSpacing[0]] == pytest.approx(-np.diag(affine)[:2])
    assert headers[0].SpacingBetweenSlices == headers[0].SliceThickness == affine[2, 2]


def test_dicom_is_one_valid_series_numbered_head_to_feet(small: PhantomScan, tmp_path: Path) -> None:
    paths = write_dicom(small, tmp_path / "one")
    again = write_dicom(small, tmp_path / "two")
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    assert [path.name for path in sorted(paths)] == [path.name for path in paths[::-1]]
    headers = [pydicom.dcmread(path) for path in paths]
    assert [header.InstanceNumber for header in headers] == list(range(len(paths), 0, -1))
    assert [header.ImagePositionPatient[2] for header in headers] == sorted(
        header.ImagePositionPatient[2] for header in headers
    )
    for keyword, count in {
        "SOPInstanceUID": 24,
        "SeriesInstanceUID": 1,
        "StudyInstanceUID": 1,
        "FrameOfReferenceUID": 1,
    }.items():
        values = {getattr(header, keyword) for header in headers}
        assert len(values) == count
        assert all(value.is_valid for value in values)
    first = headers[0]
    assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID
    assert first.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert first.SOPClassUID == first.file_meta.MediaStorageSOPClassUID == pydicom.uid.CTImageStorage
    assert (first.Modality, first.PatientID, first.StudyDate) == ("CT", "phantom_0003", "")
    other = pydicom.dcmread(write_dicom(phantom_scan(4, slices=24, size=64), tmp_path / "three")[0])
    assert other.SeriesInstanceUID != first.SeriesInstanceUID


def test_dicom_refuses_an_intercept_beyond_16_bits(small: PhantomScan, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found intercept -70000"):
        write_dicom(small, tmp_path / "series", intercept=-70000)
    assert not (tmp_path / "series").exists()


def test_demo_data_is_half_nifti_half_dicom_with_labels(tmp_path: Path) -> None:
    written = write_demo_data(tmp_path / "demo", patients=3, slices=5, size=32, seed=7)
    names = [path.relative_to(tmp_path / "demo").as_posix() for path in written]
    assert names == ["phantom_0007/ct.nii.gz", "phantom_0008/ct.nii.gz", "phantom_0009/study/series"]
    with (tmp_path / "demo" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == [*range(5)] * 3
    expected = [phantom_scan(seed, slices=5, size=32) for seed in (7, 8, 9)]
    assert [row["region"] for row in rows] == [name for one in expected for name in one.region]
    assert [int(row["lesion"]) for row in rows] == [label for one in expected for label in one.lesion]
    assert rows[6]["path"] == "phantom_0008/ct.nii.gz"
    assert rows[6]["slice_id"] == f"{volume_id('phantom_0008/ct.nii.gz')}_0001"
    for row, hu in zip(rows[10:], expected[2].hu, strict=True):
        dataset = pydicom.dcmread(tmp_path / "demo" / row["path"])
        assert (dataset.pixel_array.astype(int) - 1024 == hu).all()
        assert row["slice_id"] == f"{volume_id(dataset.SeriesInstanceUID)}_{int(row['index']):04d}"


def test_demo_data_replaces_earlier_demo_data_only(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    write_demo_data(folder, patients=2, slices=6, size=16)
    write_demo_data(folder, patients=2, slices=3, size=16)
    fresh = tmp_path / "fresh"
    write_demo_data(fresh, patients=2, slices=3, size=16)

    def files(root: Path) -> dict[Path, bytes]:
        return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    assert files(folder) == files(fresh)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "labels.csv").write_text("image,label\n")
    for taken in (foreign, foreign / "labels.csv"):
        with pytest.raises(ValueError, match="choose another folder"):
            write_demo_data(taken, patients=1, slices=1, size=16)
    assert files(foreign) == {Path("labels.csv"): b"image,label\n"}
