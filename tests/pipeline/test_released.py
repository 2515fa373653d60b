"""`as_released` gives what the released pipeline gives, slice for slice and pixel for pixel (oracle: scripts/)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cv2
import imagehash
import nibabel
import numpy as np
import pydicom
import pytest
import released_way
from helpers import read_index
from PIL import Image

from lessismore_transforms.phantom import PhantomScan, phantom_scan, write_dicom, write_nifti
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduction.target import Target

THRESHOLDS = (3, 6, 12)


def scan(seed: int, slices: int, patient: str) -> PhantomScan:
    body = phantom_scan(seed, slices=slices, size=48)
    return PhantomScan(body.hu, body.spacing_mm, body.origin_mm, patient, body.region, body.lesion)


@pytest.fixture(scope="module")
def nifti(tmp_path_factory) -> Path:
    """Four studies of three patients, axes stored in different ways; the longest study has 130 slices."""
    root = tmp_path_factory.mktemp("nifti")
    for seed, (patient, study, slices, axcodes) in enumerate(
        [
            ("PETCT_00000000a1", "2003", 60, "LPS"),
            ("PETCT_00000000a1", "2004", 130, "RAS"),
            ("PETCT_00000000b2", "2001", 12, "LPI"),
            ("PETCT_00000000c3", "2002", 25, "ASL"),
        ]
    ):
        write_nifti(scan(seed, slices, patient), root / patient / study / "CT.nii.gz", axcodes=axcodes)
    return root


@pytest.fixture(scope="module")
def dicom(tmp_path_factory) -> Path:
    """Three patients with 160 slices: the numbers of the second and the third pass 100."""
    root = tmp_path_factory.mktemp("dicom")
    for seed, (number, slices) in enumerate([(1, 70), (2, 55), (14, 35)]):
        patient = f"LIDC-IDRI-{number:04d}"
        write_dicom(scan(seed, slices, patient), root / patient / "study" / "series")
    return root


def rename_dicom(path: Path, **values: object) -> None:
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


@pytest.fixture(scope="module", autouse=True)
def hashed_once() -> Iterator[None]:
    """Each picture of the released converter is hashed once, for all thresholds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(released_way, "hash_png", cache(released_way.hash_png))
        yield


@cache
def converted(kind: str, dataset: Path) -> Path:
    """The folder of the PNG files that the released converter makes, once for all thresholds."""
    if kind == "png":
        return dataset
    pngs = dataset.with_name(f"{dataset.name}_released_png")
    pngs.mkdir()
    {"dicom": released_way.convert_dicom, "nifti": released_way.convert_nifti}[kind](dataset, pngs)
    return pngs


def released(kind: str, dataset: Path, work: Path, threshold: int) -> Path:
    """The folder of the PNG files that the released pipeline keeps."""
    kept = work / f"released_{threshold}"
    released_way.reduce_pngs(converted(kind, dataset), kept, threshold)
    return kept


def reduced(dataset: Path, work: Path, threshold: int, **options: object) -> Path:
    """Our output folder; the PNG files lie beside it under `<name>_png`."""
    key = work / "key"
    key.write_text("a key for tests only")
    out = work / f"ours_{threshold}"
    target = Target.of(threshold=threshold, rule="exemplars")
    settings = Settings(target=target, pixels="released", as_released=True, keep_patient_ids=True, **options)
    summary = reduce_dataset(dataset, out, settings, workers=0, patient_key=key, png_dir=work / f"ours_{threshold}_png")
    assert not summary.failures
    return out


def assert_same_pictures(ours: Path, theirs: Path) -> None:
    """The same names and the same pixels."""
    names = sorted(path.name for path in theirs.iterdir())
    assert sorted(path.name for path in ours.iterdir()) == names
    for name in names:
        np.testing.assert_array_equal(
            cv2.imread(str(ours / name), cv2.IMREAD_UNCHANGED),
            cv2.imread(str(theirs / name), cv2.IMREAD_UNCHANGED),
            err_msg=name,
        )


def assert_store_holds_the_pictures(out: Path, pictures: Path) -> None:
    """Each stored slice is one of the kept pictures, and the selection keeps as many."""
    rows = read_index(out)
    assert set(rows) == set(Selection.read(out).kept_ids)
    stored = sorted(
        np.load(out / "store" / f"{name.rpartition('_')[0]}.npy")[row].tobytes() for name, row in rows.items()
    )
    assert stored == sorted(np.asarray(Image.open(path)).tobytes() for path in pictures.iterdir())


def assert_equal_to_released(kind: str, dataset: Path, work: Path, threshold: int, **options: object) -> None:
    theirs = released(kind, dataset, work, threshold)
    out = reduced(dataset, work, threshold, **options)
    assert_same_pictures(work / f"ours_{threshold}_png", theirs)
    assert_store_holds_the_pictures(out, theirs)


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_phantoms(kind, threshold, tmp_path, request) -> None:
    assert_equal_to_released(kind, request.getfixturevalue(kind), tmp_path, threshold)


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_text_order_decides_who_survives(kind, tmp_path, request) -> None:
    """The data above tell text order from numeric order: this would fail in the order of the indices."""
    dataset = request.getfixturevalue(kind)
    theirs = released(kind, dataset, tmp_path, 6)
    pictures = sorted(converted(kind, dataset).iterdir(), key=lambda path: int(path.stem.rpartition("_")[2]))
    volumes: dict[str, list[Path]] = {}
    for path in pictures:
        volumes.setdefault(released_way.volume_of(path.name), []).append(path)
    numeric = []
    for paths in volumes.values():
        hashes = np.array([released_way.hash_png(path) for path in paths])
        numeric += [paths[index].name for index in released_way.exemplars(hashes, 6)]
    assert set(numeric) != {path.name for path in theirs.iterdir()}


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_other_thresholds_are_selections_from_one_run(kind, tmp_path, request) -> None:
    dataset = request.getfixturevalue(kind)
    manifest = Manifest.read(reduced(dataset, tmp_path, 6))
    released_way.run(kind, dataset, tmp_path / "released", 6)
    pngs = tmp_path / "released" / "png"
    for threshold in (0, 1, *THRESHOLDS, 20, 64):
        kept = set(manifest.select(Target.of(threshold=threshold, rule="exemplars")).kept_ids)
        theirs = released_way.reduce_pngs(pngs, tmp_path / f"kept_{threshold}", threshold)
        ours = []
        for number, (record, rows) in enumerate(manifest.by_volume(), start=1):
            prefix = record["patient"] + (f"_{number}" if kind == "nifti" else "")
            ours += [
                f"{prefix}_{record['first_number'] + index}.png"
                for name, index in zip(rows["slice_id"], rows["index"], strict=True)
                if name in kept
            ]
        assert sorted(ours) == sorted(theirs)


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_the_released_png_folder_as_input(kind, threshold, tmp_path, request) -> None:
    dataset = request.getfixturevalue(kind)
    theirs, pngs = released(kind, dataset, tmp_path, threshold), converted(kind, dataset)
    names = {path.name for path in pngs.iterdir()}
    assert ("LIDC-IDRI-0002_124.png" if kind == "dicom" else "PETCT_00000000a1_2_129.png") in names
    out = reduced(pngs, tmp_path, threshold)
    assert_same_pictures(tmp_path / f"ours_{threshold}_png", theirs)
    assert_store_holds_the_pictures(out, theirs)


def test_a_png_folder_of_pictures_that_are_not_stretched(tmp_path) -> None:
    """The released hash scripts take any picture as it is: grey levels 40 to 90 stay what they are."""
    pngs = tmp_path / "pngs"
    pngs.mkdir()
    for index, image in enumerate(phantom_scan(5, slices=30, size=48).hu):
        picture = np.clip((image + 200.0) / 8, 40, 90).astype(np.uint8)
        Image.fromarray(picture).save(pngs / f"LIDC-IDRI-0007_{index}.png")
    assert_equal_to_released("png", pngs, tmp_path, 6)


def test_stored_padding_of_minus_2000(tmp_path) -> None:
    body = scan(3, 30, "LIDC-IDRI-0003")
    body.hu[:, :5] = -2000
    body.hu[7, :, :9] = -3024  # other padding enters the minimum
    series = tmp_path / "data" / "LIDC-IDRI-0003" / "study" / "series"
    write_dicom(body, series, intercept=0)
    assert_equal_to_released("dicom", tmp_path / "data", tmp_path, 6)
    first = converted("dicom", tmp_path / "data") / "LIDC-IDRI-0003_0.png"
    assert (np.asarray(Image.open(first))[:5] > 50).all()  # 0 HU, not black


def test_padding_that_the_released_way_replaces_counts_as_air(tmp_path) -> None:
    """A stored -2000, which GE scanners write, is -1024 HU there; clipping gives the same hash, in every slice."""
    body = scan(3, 30, "LIDC-IDRI-0003")
    body.hu[:, :5] = -3024
    write_dicom(body, tmp_path / "data" / "LIDC-IDRI-0003" / "study" / "series", intercept=-1024)
    pngs = converted("dicom", tmp_path / "data")
    theirs = {int(str(imagehash.dhash(Image.open(path))), 16) for path in pngs.iterdir()}
    reduce_dataset(tmp_path / "data", tmp_path / "ours", workers=0)
    assert set(Manifest.read(tmp_path / "ours").slices["hash"].tolist()) == theirs
    assert len(theirs) > 20


@pytest.mark.parametrize("slope", ["2", "0.5", "0.75", "1.00049"])
def test_dicom_slopes_cut_off_fractions(slope, tmp_path) -> None:
    series = tmp_path / "data" / "LIDC-IDRI-0004" / "study" / "series"
    for path in write_dicom(scan(4, 30, "LIDC-IDRI-0004"), series):
        rename_dicom(path, RescaleSlope=slope, RescaleIntercept="-1024")
    assert_equal_to_released("dicom", tmp_path / "data", tmp_path, 6)


def test_dicom_without_rescale(tmp_path) -> None:
    series = tmp_path / "data" / "LIDC-IDRI-0005" / "study" / "series"
    for path in write_dicom(scan(6, 20, "LIDC-IDRI-0005"), series):
        dataset = pydicom.dcmread(path)
        del dataset.RescaleSlope, dataset.RescaleIntercept
        dataset.save_as(path)
    assert_equal_to_released("dicom", tmp_path / "data", tmp_path, 6)


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_constant_slices_are_black(kind, tmp_path) -> None:
    body = scan(8, 25, "PETCT_00000000d4")
    body.hu[3:6] = 100
    if kind == "nifti":
        write_nifti(body, tmp_path / "data" / body.patient / "study" / "CT.nii.gz")
    else:
        write_dicom(body, tmp_path / "data" / body.patient / "study" / "series")
    assert_equal_to_released(kind, tmp_path / "data", tmp_path, 6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8])
def test_nifti_voxels_of_other_types(dtype, tmp_path) -> None:
    hu = scan(9, 25, "p").hu.transpose(2, 1, 0)
    voxels = (hu + 1000) / 8 if dtype == np.uint8 else hu + np.random.default_rng(0).random(hu.shape)
    path = tmp_path / "data" / "PETCT_00000000e5" / "study" / "CT.nii.gz"
    path.parent.mkdir(parents=True)
    nibabel.save(
        nibabel.Nifti1Image(
            np.clip(voxels, 0, 255).astype(dtype) if dtype == np.uint8 else voxels.astype(dtype),
            np.diag([-1.0, -1, 3, 1]),
        ),
        path,
    )
    assert_equal_to_released("nifti", tmp_path / "data", tmp_path, 6)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, -1024.0), (2.0, 10.0), (0.5, -1024.25)])
def test_nifti_scaling(slope, intercept, tmp_path) -> None:
    """HU that float32 holds exactly; another slope (0.1) may move a voxel that lies on a rounding tie."""
    hu = phantom_scan(10, slices=12, size=256).hu.transpose(2, 1, 0)
    path = tmp_path / "data" / "PETCT_00000000f6" / "study" / "CT.nii.gz"
    path.parent.mkdir(parents=True)
    image = nibabel.Nifti1Image(hu, np.diag([-1.0, -1, 3, 1]))
    image.header.set_slope_inter(slope, intercept)
    nibabel.save(image, path)
    assert nibabel.load(path).dataobj.slope == pytest.approx(slope)
    assert_equal_to_released("nifti", tmp_path / "data", tmp_path, 0)


def test_patients_are_numbered_in_the_order_of_their_folders(tmp_path) -> None:
    """Folder by folder: `p` comes before `p-2`, though `p-2/` comes before `p/` as text."""
    for seed, patient in enumerate(["p", "p-2", "p.3"]):
        write_dicom(scan(seed, 15, patient), tmp_path / "dicom" / patient / "study" / "series")
        write_nifti(scan(seed, 15, patient), tmp_path / "nifti" / patient / "study" / "CT.nii.gz")
    for kind in ("dicom", "nifti"):
        (tmp_path / f"of_{kind}").mkdir()
        assert_equal_to_released(kind, tmp_path / kind, tmp_path / f"of_{kind}", 6)


def test_two_series_of_a_patient_are_one_volume_in_the_released_png_folder(tmp_path) -> None:
    """As DICOM they are two volumes here, which as_released does not change; their PNG files are one."""
    patient = "LIDC-IDRI-0132"
    for seed, series in enumerate(["series_1", "series_2"]):
        write_dicom(scan(seed, 40 + seed, patient), tmp_path / "data" / patient / "study" / series)
    released("dicom", tmp_path / "data", tmp_path, 6)
    assert_pngs_as_input_agree(converted("dicom", tmp_path / "data"), tmp_path, 6)


def test_only_ct_files_count(nifti, tmp_path) -> None:
    """Other images beside CT.nii.gz are left out by --include."""
    dataset = tmp_path / "data"
    shutil.copytree(nifti, dataset)
    for study in dataset.glob("*/*"):
        shutil.copy(study / "CT.nii.gz", study / "CTres.nii.gz")
    assert_equal_to_released("nifti", dataset, tmp_path, 6, include=("CT.nii.gz",))


@pytest.fixture(scope="module")
def real_nifti(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real volumes, each as the only study of a patient."""
    dataset = tmp_path_factory.mktemp("real") / "nifti"
    files = sorted((real_data / "ct").rglob("*.nii.gz"))
    assert len(files) >= 4
    for number, path in enumerate(files):
        study = dataset / f"PETCT_{number:010x}" / "study"
        study.mkdir(parents=True)
        (study / "CT.nii.gz").symlink_to(path)
    return dataset


@pytest.fixture(scope="module")
def real_dicom(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real series, as the only one of its patient."""
    dataset = tmp_path_factory.mktemp("real") / "dicom"
    (series,) = (real_data / "ct" / "chest_dicom").iterdir()
    patient = str(pydicom.dcmread(next(series.glob("*.dcm"))).PatientID)
    shutil.copytree(series, dataset / patient / "study" / series.name)
    return dataset


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_real_nifti(threshold, tmp_path, real_nifti) -> None:
    assert_equal_to_released("nifti", real_nifti, tmp_path, threshold)
    assert_pngs_as_input_agree(converted("nifti", real_nifti), tmp_path, threshold)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_real_dicom(threshold, tmp_path, real_dicom) -> None:
    assert_equal_to_released("dicom", real_dicom, tmp_path, threshold)
    pngs = converted("dicom", real_dicom)
    assert_pngs_as_input_agree(pngs, tmp_path, threshold, patterns=(r"(?P<patient>.*)_(?P<index>\d+)",))


def assert_pngs_as_input_agree(pngs: Path, work: Path, threshold: int, **options: object) -> None:
    """The PNG folder of the released converter, reduced by us, gives the kept set that `released` left in `work`."""
    (work / "from_png").mkdir()
    reduced(pngs, work / "from_png", threshold, **options)
    assert_same_pictures(work / "from_png" / f"ours_{threshold}_png", work / f"released_{threshold}")
