from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from helpers import tree

from lessismore_transforms.errors import UserError, VolumeError
from lessismore_transforms.phantom import phantom_scan, write_dicom, write_nifti
from lessismore_transforms.pipeline import volume_task
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report import write_report
from lessismore_transforms.volumes import volume_id


def test_what_a_run_leaves(expected: dict[str, bytes]) -> None:
    volumes = [record["volume"] for record in json.loads(expected["manifest.json"])["volumes"]]
    assert set(expected) == {
        "manifest.csv",
        "manifest.json",
        "selections/default.csv",
        "selections/default.json",
        "store/index.csv",
        *(f"store/{volume}.npy" for volume in volumes),
        *(f"store/thumbnails/{volume}.npy" for volume in volumes),
    }


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_number_of_workers_changes_nothing(
    small_data: Path, tmp_path: Path, expected: dict[str, bytes], workers: int
) -> None:
    reduce_dataset(small_data, tmp_path / "out", workers=workers)
    assert tree(tmp_path / "out") == expected


def test_a_volume_that_a_measure_cannot_take_and_a_defect_are_sentences(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for error, sentence in (
        (UserError("too small for ssim"), ": too small for ssim"),
        (KeyError("PatientName DOE^JANE"), ": a defect of this program (KeyError): report it with"),
    ):

        def fail(_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(volume_task, "_reduce_volume", fail)
        out = tmp_path / type(error).__name__
        reasons = [reason for _, reason in reduce_dataset(small_data, out, workers=0).failures]
        assert len(reasons) == 4
        assert all(sentence in reason for reason in reasons)
        said = capfd.readouterr().err
        assert said.count("failed: ") == 4  # each once
        log = (out / "run.jsonl").read_text()
        assert "DOE" not in said + log + (out / "manifest.json").read_text()
        assert ("test_run.py" in log) == isinstance(error, KeyError)


def test_a_broken_volume_is_listed_and_tried_again(
    small_data: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    data = shutil.copytree(small_data, tmp_path / "data")
    path = next(data.rglob("*.nii.gz"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-2000])
    summary = reduce_dataset(data, tmp_path / "out", workers=0)
    assert summary.volumes == 3
    name = path.relative_to(data).as_posix()
    assert [failure[0] for failure in summary.failures] == [name]
    (failure,) = Manifest.read(tmp_path / "out").info["failures"]
    assert failure == {"volume": volume_id(name), "path": name, "reason": summary.failures[0][1]}
    assert "truncated" in failure["reason"]
    with pytest.raises(VolumeError, match="truncated"):
        reduce_dataset(data, tmp_path / "strict", workers=0, strict=True)
    path.write_bytes(whole)
    assert reduce_dataset(data, tmp_path / "out", workers=0).resumed == 3
    assert tree(tmp_path / "out") == expected


def test_a_broken_slice_has_a_row_with_its_reason(tmp_path: Path) -> None:
    files = write_dicom(phantom_scan(0, slices=10, size=32), tmp_path / "data" / "p")
    files[4].write_bytes(files[4].read_bytes()[:-7])
    reduce_dataset(tmp_path / "data", tmp_path / "out", Settings(Target.of(threshold=0)), workers=0)
    manifest = Manifest.read(tmp_path / "out")
    row = manifest.slices.iloc[4]
    assert "truncated" in row["reason"]
    assert (row["hash"], row["rank"], row["removed_by"]) == (0, 0, "")
    assert not Selection.read(tmp_path / "out").slices["kept"][4]
    assert "1 slice cannot be read" in manifest.volumes[0]["notes"][0]
    assert not manifest.select(Target.of(fraction=1)).slices["kept"][4]
    assert manifest.select(Target.of(fraction=1)).slices["kept"].sum() == 9
    for path in files:
        path.write_bytes(path.read_bytes()[:-7])
    summary = reduce_dataset(tmp_path / "data", tmp_path / "none", workers=0)
    assert "none of its 10 slices can be read; the first: truncated: 2041 of 2048 bytes" in summary.failures[0][1]
    assert len(Manifest.read(tmp_path / "none").slices) == 0


def test_the_report_shows_no_word_of_the_folder_of_a_failed_volume(tmp_path: Path) -> None:
    for folder in ("Anna Maria Musterfrau", "Zorro 'Maxi' Musterfrau"):
        for path in write_dicom(phantom_scan(0, slices=4, size=32), tmp_path / "data" / folder):
            path.write_bytes(path.read_bytes()[:-7])
    write_nifti(phantom_scan(1, slices=4, size=32), tmp_path / "data" / "p" / "ct.nii.gz")
    reduce_dataset(tmp_path / "data", tmp_path / "out", workers=0)
    page = write_report(tmp_path / "out").read_text(encoding="utf-8")
    assert "none of its 4 slices can be read; the first:" in page
    assert not [word for word in ("Anna", "Maria", "Musterfrau", "Zorro", "Maxi") if word in page]


def test_the_same_scan_in_any_format_and_order_keeps_the_same_slices(tmp_path: Path) -> None:
    scan = phantom_scan(2, slices=40, size=64)
    write_dicom(scan, tmp_path / "data" / "dicom")
    for axcodes in ("LPS", "RAS", "SRP"):
        write_nifti(scan, tmp_path / "data" / axcodes / "ct.nii.gz", axcodes=axcodes)
    reduce_dataset(tmp_path / "data", tmp_path / "out", workers=0)
    manifest, selection = Manifest.read(tmp_path / "out"), Selection.read(tmp_path / "out")
    columns = ["index", "height", "width", "hash", "removed_at", "rank"]
    volumes = {record["path"]: rows[columns].to_numpy() for record, rows in manifest.by_volume()}
    kept = dict(zip(volumes, selection.slices["kept"].to_numpy()[: 3 * 40].reshape(3, 40), strict=False))
    # SRP is stored with its slices front to back: a coronal volume of the same scan, another stack altogether.
    assert volumes.pop("SRP/ct.nii.gz").shape != volumes["dicom"].shape
    for path in ("LPS/ct.nii.gz", "RAS/ct.nii.gz"):
        np.testing.assert_array_equal(volumes[path], volumes["dicom"])
        assert (kept[path] == kept["LPS/ct.nii.gz"]).all()
    assert manifest.volumes[-1]["path"] == "dicom"
    assert (selection.slices["kept"].to_numpy()[-40:] == kept["LPS/ct.nii.gz"]).all()


def test_a_real_dicom_series_as_nifti_in_another_axis_order(real_data: Path, tmp_path: Path) -> None:
    import itk

    source = real_data / "ct" / "chest_dicom"
    shutil.copytree(source, tmp_path / "data" / "dicom")
    files = sorted((tmp_path / "data" / "dicom").rglob("*.dcm"), key=lambda path: -int(path.stem[2:]))
    image = itk.imread([str(path) for path in files])
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    voxels = np.asarray(itk.array_from_image(image)).T.astype(np.int16)
    nifti = nibabel.Nifti1Image(voxels, np.diag([-1.0, -1, 1, 1]) @ affine)
    (tmp_path / "data" / "nifti").mkdir()
    ras = nibabel.orientations.axcodes2ornt("ARI")
    turned = nifti.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(nifti.affine), ras))
    nibabel.save(turned, tmp_path / "data" / "nifti" / "ct.nii.gz")
    reduce_dataset(tmp_path / "data", tmp_path / "out", workers=0)
    manifest = Manifest.read(tmp_path / "out")
    (_, dicom_rows), (_, nifti_rows) = manifest.by_volume()
    for column in ("hash", "removed_at", "rank", "position_mm", "index"):
        np.testing.assert_array_equal(nifti_rows[column], dicom_rows[column])
    kept = Selection.read(tmp_path / "out").slices["kept"].to_numpy()
    assert (kept[:30] == kept[30:]).all()
    assert 0 < kept[:30].sum() < 30


def test_small_and_constant_volumes(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    affine = np.diag([-1, -1, 1, 1.0])
    noise = np.random.default_rng(0).integers(-1000, 1000, (20, 30)).astype(np.int16)
    for name, voxels in {
        "one": noise[..., None],
        # Of air: whole numbers without any are a label map.
        "constant": np.full((20, 30, 5), -1000, np.int16),
        "nan": np.full((20, 30, 2), np.nan, np.float32),
        "two_by_one": np.full((1, 2, 3), -1000, np.int16),
    }.items():
        nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "data" / f"{name}.nii.gz")
    assert reduce_dataset(tmp_path / "data", tmp_path / "out", workers=0).failures == []
    manifest = Manifest.read(tmp_path / "out")
    selection = Selection.read(tmp_path / "out").slices
    kept = {record["path"]: int(selection["kept"][rows.index].sum()) for record, rows in manifest.by_volume()}
    assert kept == {"one.nii.gz": 1, "constant.nii.gz": 1, "nan.nii.gz": 1, "two_by_one.nii.gz": 1}
    notes = {record["path"]: record["notes"] for record in manifest.volumes}
    assert notes["nan.nii.gz"] == ["1200 voxels were NaN or infinite: set to the lowest value of their slice"]


def test_odd_names_and_folders(tmp_path: Path) -> None:
    for name in ("scan 10:30, left", "a\\b", "Müller", 'with "quotes"'):
        write_nifti(phantom_scan(0, slices=3, size=32), tmp_path / "data" / name / "ct.nii.gz")
    (tmp_path / "data" / "two\nlines.txt").touch()
    with open(os.fsencode(tmp_path / "data") + b"/M\xfcller.txt", "w", encoding="utf-8"):  # noqa: PTH123
        pass
    summary = reduce_dataset(tmp_path / "data", tmp_path / "out", workers=0)
    assert (summary.volumes, summary.skipped) == (4, 2)
    assert len(Manifest.read(tmp_path / "out").slices) == 12
    assert reduce_dataset(tmp_path / "data", tmp_path / "out", workers=0).resumed == 4
