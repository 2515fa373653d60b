"""CTVolumeReader against MONAI's own readers, and what it refuses."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
from monai.transforms import Compose, LoadImage, LoadImaged, Orientation
from PIL import Image

from lessismore_transforms.phantom import phantom_scan, write_dicom, write_nifti
from lessismore_transforms.transforms import CTVolumeReader
from lessismore_transforms.volumes import find_volumes, read_slices


@pytest.fixture(scope="module")
def scan():
    return phantom_scan(3, slices=6, size=32)


def read(paths, **options):
    reader = CTVolumeReader(**options)
    return reader.get_data(reader.read(paths))


def check_phantom(array, meta, scan):
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, scan.hu.transpose(2, 1, 0))  # (x, y, z), x to the left, y to posterior
    x, y, z = scan.origin_mm
    dz, dy, dx = scan.spacing_mm
    expected = [[-dx, 0, 0, -x], [0, -dy, 0, -y], [0, 0, dz, z], [0, 0, 0, 1]]
    np.testing.assert_allclose(meta["affine"], expected, atol=1e-3)
    np.testing.assert_array_equal(meta["original_affine"], meta["affine"])
    assert meta["spatial_shape"].tolist() == list(array.shape)
    np.testing.assert_allclose(meta["spacing"], [dx, dy, dz], atol=1e-3)
    assert meta["space"] == "RAS"
    assert np.isnan(meta["original_channel_dim"])


@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "PIR", "SLA"])
def test_nifti_in_any_axis_order_keeps_its_world_and_its_slice_axis(tmp_path, scan, axcodes):
    path = write_nifti(scan, tmp_path / "ct.nii.gz", axcodes=axcodes)
    array, meta = read(path)
    if axcodes[2] in "SI":
        check_phantom(array, meta, scan)
    turned = Orientation("LPS", labels=None)(LoadImage(reader=CTVolumeReader())(path)[None])[0]
    np.testing.assert_array_equal(turned.numpy(), scan.hu.transpose(2, 1, 0))


def test_dicom_folder_and_list_in_any_order(tmp_path, scan):
    paths = write_dicom(scan, tmp_path / "series")
    check_phantom(*read(tmp_path / "series"), scan)
    check_phantom(*read(paths[::2] + paths[1::2]), scan)
    check_phantom(*read(find_volumes(tmp_path).volumes[0].as_dict(tmp_path)["image"]), scan)
    one, meta = read(str(paths[0]))
    np.testing.assert_array_equal(one[..., 0], scan.hu[0].T)
    assert meta["spacing"][2] == pytest.approx(scan.spacing_mm[0])  # SliceThickness, as there is one slice


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_itk_files(tmp_path, scan, suffix):
    import itk

    image = itk.image_from_array(scan.hu)
    image.SetSpacing(scan.spacing_mm[::-1])
    image.SetOrigin(scan.origin_mm)
    itk.imwrite(image, str(tmp_path / f"ct{suffix}"))
    check_phantom(*read(tmp_path / f"ct{suffix}"), scan)


def test_pictures_are_taken_in_the_order_of_the_list(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in ("b", "a", "c")]
    for grey, path in enumerate(paths):
        Image.fromarray(np.full((4, 5), grey, np.uint8)).save(path)
    array, meta = read(paths)
    assert array.shape == (5, 4, 3)
    assert array[0, 0].tolist() == [0, 1, 2]
    assert meta["affine"].tolist() == np.diag([-1.0, -1.0, 1.0, 1.0]).tolist()


def test_a_gap_is_told_in_the_metadata(tmp_path, scan):
    paths = write_dicom(scan, tmp_path)
    paths[2].unlink()
    assert "gap of 160.0 mm" in read(tmp_path)[1]["notes"]


def test_several_series_are_refused_until_one_is_chosen(tmp_path, scan):
    write_dicom(scan, tmp_path / "one")
    write_dicom(phantom_scan(4, slices=3, size=32), tmp_path / "two")
    first, second = (volume.series for volume in find_volumes(tmp_path).volumes)
    with pytest.raises(ValueError, match=rf"found 2 \({first}, {second}\): choose .*CTVolumeReader\(series="):
        read(tmp_path)
    # LoadImage tries its other readers where `read` raises; ITKReader would take one of the two.
    with pytest.raises(ValueError, match="found 2"):
        LoadImage(reader=CTVolumeReader())(tmp_path)
    check_phantom(*read(tmp_path, series=first), scan)
    assert read(tmp_path, series=second)[0].shape == (32, 32, 3)
    with pytest.raises(ValueError, match=r"expected the series 1\.2 in"):
        read(tmp_path, series="1.2")


def test_mistakes_are_told_in_a_sentence(tmp_path, scan):
    with pytest.raises(ValueError, match="found nothing: check the path"):
        read(tmp_path / "nowhere.nii")
    with pytest.raises(ValueError, match=r"expected a CT volume in .* found none"):
        read(tmp_path)
    with pytest.raises(ValueError, match="empty list"):
        read([])
    nifti = write_nifti(scan, tmp_path / "ct.nii")
    with pytest.raises(ValueError, match="expected one volume, found 2 paths"):
        read([nifti, nifti])
    (tmp_path / "bad.nii").write_bytes(b"no image")
    with pytest.raises(ValueError, match="is no CT volume: damaged NIfTI header"):
        read(tmp_path / "bad.nii")
    paths = write_dicom(scan, tmp_path / "series")
    shutil.copy(paths[0], tmp_path / "series" / "copy.dcm")
    with pytest.raises(ValueError, match="is no slice of the volume: a copy of"):
        read([*paths, tmp_path / "series" / "copy.dcm"])
    for size, name in ((4, "1.png"), (5, "2.png")):
        Image.fromarray(np.zeros((size, size), np.uint8)).save(tmp_path / name)
    with pytest.raises(ValueError, match=r"expected slices of \(4, 4\) pixels"):
        read([tmp_path / "1.png", tmp_path / "2.png"])


def test_suffixes():
    known = CTVolumeReader().verify_suffix
    assert known("ct.nii.gz")
    assert known(["1.dcm", "2.IMA", "IM_0001", "1.2.840.113"])
    assert known("/")
    assert not known("labels.csv")
    assert not known(["1.png", "notes.txt"])


def test_pickles_and_works_by_name(tmp_path, scan):
    path = write_nifti(scan, tmp_path / "ct.nii")
    reader = pickle.loads(pickle.dumps(CTVolumeReader(series="1.2")))  # noqa: S301
    assert reader.series == "1.2"
    load = LoadImage(reader="lessismore_transforms.transforms.CTVolumeReader")
    np.testing.assert_array_equal(load(path).numpy(), scan.hu.transpose(2, 1, 0))


REAL = [
    ("trunk_3mm/example_ct.nii.gz", "NibabelReader"),
    ("head_phantom_uint8/CT_pitch.nii.gz", "NibabelReader"),
    ("chest_lidc/LIDC-IDRI-0314_z108-171.nii.gz", "ITKReader"),
    ("chest_dicom/Lung_Dx-A0002_B40f", "ITKReader"),
]


@pytest.mark.parametrize(("name", "other"), REAL)
def test_same_voxels_and_geometry_as_monais_readers(real_data, name, other):
    path = str(real_data / "ct" / name)
    turn = Orientation("RAS", labels=None)
    ours = turn(LoadImage(reader=CTVolumeReader(), ensure_channel_first=True)(path))
    theirs = turn(LoadImage(reader=other, ensure_channel_first=True)(path))
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-3)


def test_real_volume_is_the_canonical_stack(real_data):
    root = real_data / "ct" / "trunk_3mm"
    (volume,) = find_volumes(root).volumes
    loaded = Compose([LoadImaged("image", reader=CTVolumeReader())])(volume.as_dict(root))["image"]
    for piece in read_slices(volume, root):
        np.testing.assert_array_equal(loaded[..., piece.index].numpy().T, piece.hu)
