"""NIfTI, NRRD, MetaImage and groups of 2-D images."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from helpers import stack
from PIL import Image

from lessismore_transforms.errors import UserError, VolumeError
from lessismore_transforms.phantom import PhantomScan, phantom_scan, write_dicom, write_nifti
from lessismore_transforms.volumes import Crc32, find_volumes, read_slices, volume_id

SLICES, SIZE = 9, 32


@pytest.fixture(scope="module")
def scan() -> PhantomScan:
    return phantom_scan(5, slices=SLICES, size=SIZE)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "PLI", "ARS"])
def test_nifti_in_any_axis_order_is_the_same_volume(
    scan: PhantomScan, tmp_path: Path, axcodes: str, suffix: str
) -> None:
    path = write_nifti(scan, tmp_path / "p7" / f"ct{suffix}", axcodes=axcodes)
    found = find_volumes(tmp_path)
    (volume,) = found.volumes
    np.testing.assert_array_equal(stack(found, tmp_path), scan.hu)
    assert volume.volume == volume_id(f"p7/ct{suffix}")
    assert volume.patient == "p7"
    np.testing.assert_allclose(volume.spacing_mm, scan.spacing_mm, rtol=1e-6)
    np.testing.assert_allclose(
        volume.positions_mm, scan.origin_mm[2] + scan.spacing_mm[0] * np.arange(SLICES), atol=1e-3
    )
    crc = Crc32()
    list(read_slices(volume, tmp_path, crc))
    assert crc.value == zlib.crc32(path.read_bytes())


def test_nifti_and_dicom_of_a_scan_have_the_same_geometry(scan: PhantomScan, tmp_path: Path) -> None:
    write_nifti(scan, tmp_path / "a" / "ct.nii.gz", axcodes="RAS")
    write_dicom(scan, tmp_path / "b")
    nifti, dicom = find_volumes(tmp_path).volumes
    np.testing.assert_allclose(nifti.affine, dicom.affine, atol=1e-4)
    np.testing.assert_allclose(nifti.positions_mm, dicom.positions_mm, atol=1e-3)


@pytest.mark.parametrize("axcodes", ["LPS", "RAS"])
def test_stored_orientation_is_the_released_one(scan: PhantomScan, tmp_path: Path, axcodes: str) -> None:
    path = write_nifti(scan, tmp_path / "ct.nii.gz", axcodes=axcodes)
    found = find_volumes(tmp_path, stored=True)
    expected = np.asarray(nibabel.load(path).dataobj).transpose(2, 1, 0)
    np.testing.assert_array_equal(stack(found, tmp_path), expected)


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept"),
    [("uint8", 1, 0), (">i2", 1, 0), ("int32", 1, 0), ("uint16", 1, -1024), ("float32", 1, 0), ("int16", 0.5, 0.25)],
)
def test_nifti_types_and_scaling(tmp_path: Path, dtype: str, slope: float, intercept: float) -> None:
    stored = np.random.default_rng(1).integers(0, 200, (7, 6, 3)).astype(dtype)
    image = nibabel.Nifti1Image(stored, np.diag([-1, -1, 1, 1.0]), dtype=np.dtype(dtype))
    image.header.set_slope_inter(slope, intercept)
    nibabel.save(image, tmp_path / "ct.nii")
    expected = nibabel.load(tmp_path / "ct.nii").get_fdata().transpose(2, 1, 0)
    np.testing.assert_array_equal(stack(find_volumes(tmp_path), tmp_path), expected)


@pytest.mark.parametrize(("slope", "intercept"), [(0, 0), (0, 7), (np.nan, 0), (np.nan, np.nan)])
def test_nifti_that_asks_for_no_scaling(tmp_path: Path, slope: float, intercept: float) -> None:
    stored = np.random.default_rng(1).integers(-1000, 200, (7, 6, 3)).astype(np.int16)
    image = nibabel.Nifti1Image(stored, np.diag([-1, -1, 1, 1.0]))
    nibabel.save(image, tmp_path / "ct.nii")
    with (tmp_path / "ct.nii").open("r+b") as file:
        file.seek(112)  # scl_slope, scl_inter
        file.write(struct.pack("<2f", slope, intercept))
    np.testing.assert_array_equal(stack(find_volumes(tmp_path), tmp_path), stored.transpose(2, 1, 0))


def test_voxels_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    values = np.ones((4, 4, 2), np.float32)
    values[0, 0, 0], values[1, 1, 0], values[2, 2, 0] = np.nan, np.inf, -5
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-1, -1, 1, 1.0])), tmp_path / "ct.nii.gz")
    first, second = read_slices(find_volumes(tmp_path).volumes[0], tmp_path)
    assert (first.replaced, second.replaced) == (2, 0)
    assert first.hu[0, 0] == first.hu[1, 1] == -5


@pytest.mark.parametrize(
    ("shape", "reason"), [((4, 5, 6, 2), "4-D image of shape 4 x 5 x 6 x 2"), ((4, 5, 6, 1), None), ((4, 5), None)]
)
def test_nifti_dimensions(tmp_path: Path, shape: tuple[int, ...], reason: str | None) -> None:
    nibabel.save(nibabel.Nifti1Image(np.full(shape, -1000, np.int16), np.eye(4)), tmp_path / "ct.nii.gz")
    found = find_volumes(tmp_path)
    if reason is None:
        assert found.volumes[0].shape == ((6, 5, 4) if len(shape) > 2 else (1, 5, 4))
    else:
        assert reason in found.skipped[0].reason


def test_colour_nifti_and_noise_are_listed(tmp_path: Path) -> None:
    colour = np.zeros((4, 4, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colour, np.eye(4)), tmp_path / "a.nii")
    (tmp_path / "b.nii.gz").write_bytes(b"no gzip at all")
    (tmp_path / "c.mha").write_bytes(b"no header")
    reasons = [item.reason for item in find_volumes(tmp_path).skipped]
    assert "not HU" in reasons[0]
    assert "damaged NIfTI header" in reasons[1]
    assert "damaged header" in reasons[2]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "short"])
def test_a_damaged_nifti_is_one_sentence(scan: PhantomScan, tmp_path: Path, damage: str) -> None:
    path = write_nifti(scan, tmp_path / "p" / "ct.nii.gz")
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    else:  # sound gzip, too few voxels
        data = bytearray(gzip.compress(gzip.decompress(bytes(data))[:-10]))
    path.write_bytes(data)
    (volume,) = find_volumes(tmp_path).volumes
    with pytest.raises(VolumeError, match=rf"p/ct.nii.gz: the file is (truncated|damaged).*expected {SLICES} slices"):
        list(read_slices(volume, tmp_path))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
def test_itk_formats(scan: PhantomScan, tmp_path: Path, suffix: str) -> None:
    import itk

    image = itk.image_from_array(np.ascontiguousarray(scan.hu[::-1, ::-1]))  # head first, anterior rows last
    dz, dy, dx = scan.spacing_mm
    image.SetSpacing([dx, dy, dz])
    x, y, z = scan.origin_mm
    image.SetOrigin([x, y + dy * (SIZE - 1), z + dz * (SLICES - 1)])
    image.SetDirection(itk.matrix_from_array(np.diag([1.0, -1.0, -1.0])))
    (tmp_path / "p").mkdir()
    itk.imwrite(image, str(tmp_path / "p" / f"ct{suffix}"))
    found = find_volumes(tmp_path)
    (volume,) = found.volumes
    np.testing.assert_array_equal(stack(found, tmp_path), scan.hu)
    np.testing.assert_allclose(volume.spacing_mm, scan.spacing_mm)
    np.testing.assert_allclose(volume.positions_mm, z + dz * np.arange(SLICES))
    crc, expected = Crc32(), Crc32()
    list(read_slices(volume, tmp_path, crc))
    expected.update((tmp_path / "p" / f"ct{suffix}").read_bytes())
    if suffix == ".mhd":
        expected.update((tmp_path / "p" / "ct.raw").read_bytes())
    assert crc.value == expected.value


def test_a_metaimage_without_its_data_is_one_sentence(scan: PhantomScan, tmp_path: Path) -> None:
    import itk

    itk.imwrite(itk.image_from_array(scan.hu), str(tmp_path / "ct.mhd"))
    (tmp_path / "ct.raw").unlink()
    with pytest.raises(VolumeError, match=r"ct\.mhd: the voxels cannot be read"):
        list(read_slices(find_volumes(tmp_path).volumes[0], tmp_path))


def picture(path: Path, value: int, size: tuple[int, int] = (6, 5), mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).convert(mode).save(path)


def test_released_names_are_volumes_in_order_of_their_numbers(tmp_path: Path) -> None:
    for index in (9, 10, 100):
        picture(tmp_path / f"LIDC-IDRI-0001_{index}.png", index)
        picture(tmp_path / f"PETCT_20a607649d_111_{index}.png", index + 1)
        picture(tmp_path / f"PETCT_20a607649d_112_{index}.png", index + 2)
    picture(tmp_path / "logo.png", 0)
    found = find_volumes(tmp_path)
    assert [(volume.patient, volume.shape) for volume in found.volumes] == [
        ("LIDC-IDRI-0001", (3, 5, 6)),
        ("PETCT_20a607649d", (3, 5, 6)),
        ("PETCT_20a607649d", (3, 5, 6)),
    ]
    assert stack(found, tmp_path, 1)[:, 0, 0].tolist() == [10, 11, 101]
    assert found.volumes[0].positions_mm == [9, 10, 100]
    assert "89 slice numbers are missing" in found.volumes[0].notes[1]
    assert [(item.path, item.reason) for item in found.skipped] == [
        ("logo.png", "its name fits no slice pattern: name one with --pattern")
    ]
    text_order = find_volumes(tmp_path, stored=True)
    assert stack(text_order, tmp_path, 0)[:, 0, 0].tolist() == [10, 100, 9]


def test_image_modes_sizes_and_repeats(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "s1.png", 50, mode="RGB")
    picture(tmp_path / "a" / "s2.png", 60, mode="P")
    picture(tmp_path / "a" / "s3.jpg", 70)
    picture(tmp_path / "a" / "s5.jpg", 100)
    picture(tmp_path / "a" / "s4.png", 80, size=(3, 3))
    picture(tmp_path / "a" / "s003.png", 90)
    found = find_volumes(tmp_path, patterns=["numbered"])
    assert [volume.shape for volume in found.volumes] == [(4, 5, 6), (1, 3, 3)]
    assert stack(found, tmp_path)[:, 0, 0].tolist() == [50, 60, 90, 100]
    assert found.skipped[0].path == "a/s3.jpg"
    assert "same slice number as a/s003.png" in found.skipped[0].reason


READ = """
import sys
from lessismore_transforms.volumes import find_volumes, read_slices
(volume,) = find_volumes(sys.argv[1]).volumes
print([int(each.hu[0, 0]) for each in read_slices(volume, sys.argv[1])])
print(sorted({"pydicom", "nibabel"} & {*sys.modules}))
"""


def test_pictures_are_read_without_the_libraries_of_other_formats(tmp_path: Path) -> None:
    for index in (0, 1):
        picture(tmp_path / f"LIDC-IDRI-0001_{index}.png", 7 + index)
    done = subprocess.run([sys.executable, "-c", READ, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[7, 8]", "[]"]


def test_a_pattern_whose_index_is_no_number_is_told(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "LIDC_1.png")
    (item,) = find_volumes(tmp_path, patterns=("(?P<index>.*)",)).skipped
    assert item.reason == "what its slice pattern takes for the number is none: name another --pattern"


def test_patterns_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\(\?P<index>"):
        find_volumes(tmp_path, patterns=["slice_(.*)"])
    with pytest.raises(ValueError, match="no regular expression"):
        find_volumes(tmp_path, patterns=["("])


def test_only_included_files_and_no_hidden_ones(scan: PhantomScan, tmp_path: Path) -> None:
    for name in ("p/s/CT.nii.gz", "p/s/SEG.nii.gz", ".cache/CT.nii.gz"):
        write_nifti(scan, tmp_path / name)
    found = find_volumes(tmp_path, include=["CT.nii.gz"])
    assert [volume.path for volume in found.volumes] == ["p/s/CT.nii.gz"]
    assert [(item.path, item.reason) for item in found.skipped] == [
        (".cache", "a hidden folder"),
        ("p/s/SEG.nii.gz", "does not match --include"),
    ]


def test_links_are_followed_once(scan: PhantomScan, tmp_path: Path) -> None:
    write_nifti(scan, tmp_path / "elsewhere" / "ct.nii.gz")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "p1").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data", target_is_directory=True)
    assert [volume.path for volume in find_volumes(tmp_path / "data").volumes] == ["p1/ct.nii.gz"]


def test_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found nothing"):
        find_volumes(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="found a file"):
        find_volumes(tmp_path / "file")


def test_real_volumes_against_nibabel(real_data: Path) -> None:
    root = real_data / "ct"
    found = find_volumes(root)
    assert sum(volume.shape[0] for volume in found.volumes) == 363
    assert found.skipped == []
    for number, volume in enumerate(found.volumes):
        if volume.format == "nifti":
            image = nibabel.load(root / volume.path)
            lps = nibabel.orientations.ornt_transform(
                nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt("LPS")
            )
            expected = image.as_reoriented(lps)
            np.testing.assert_array_equal(stack(found, root, number), expected.get_fdata().T)
            np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-4)
