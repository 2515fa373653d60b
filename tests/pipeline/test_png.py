from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from lessismore_transforms.errors import RunError
from lessismore_transforms.phantom import phantom_scan, write_dicom
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduction.target import Target


def test_png_names_are_those_of_the_released_data(small_data: Path, tmp_path: Path) -> None:
    settings = Settings(Target.of(threshold=0), keep_patient_ids=True)
    reduce_dataset(small_data, tmp_path / "out", settings, workers=0, png_dir=tmp_path / "png")
    names = {path.name for path in (tmp_path / "png").iterdir()}
    expected = set()
    for name in Selection.read(tmp_path / "out").kept_ids:
        volume, _, index = name.rpartition("_")
        number = [record["volume"] for record in Manifest.read(tmp_path / "out").volumes].index(volume)
        # Files: patient, number of the volume from 1, slice. DICOM: patient, number of the slice in the data set.
        tail = f"{number + 1}_{int(index)}" if number < 2 else f"{(number - 2) * 24 + int(index)}"
        expected.add(f"phantom_000{number}_{tail}.png")
    assert names == expected
    again = reduce_dataset(tmp_path / "png", tmp_path / "out2", Settings(patterns=("numbered",)), workers=0)
    assert again.slices == len(names)
    assert {Image.open(path).size for path in (tmp_path / "png").iterdir()} == {(48, 48)}


def test_png_of_volumes_that_were_done_before_and_names_that_repeat(tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / "data" / folder).mkdir(parents=True)
        for number in range(3):
            noise = np.random.default_rng([ord(folder), number]).integers(0, 256, (12, 12), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / "data" / folder / f"{number:03d}.png")
    settings = Settings(Target.of(method="all"), patterns=("numbered",))
    reduce_dataset(tmp_path / "data", tmp_path / "out", settings, workers=0)
    reduce_dataset(tmp_path / "data", tmp_path / "out", settings, workers=0, png_dir=tmp_path / "png")
    volumes = [record["volume"] for record in Manifest.read(tmp_path / "out").volumes]
    names = sorted(f"{volume}_{number:03d}.png" for volume in volumes for number in range(3))
    assert sorted(path.name for path in (tmp_path / "png").iterdir()) == names
    (tmp_path / "out" / "store" / f"{volumes[0]}.npy").unlink()
    reduce_dataset(tmp_path / "data", tmp_path / "out", settings, workers=0, png_dir=tmp_path / "again")
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == names  # the lost file is made anew
    with pytest.raises(RunError, match="png lies inside the data set"):
        reduce_dataset(tmp_path / "data", tmp_path / "x", settings, workers=0, png_dir=tmp_path / "data" / "png")


def test_two_series_of_a_patient_do_not_share_a_name(tmp_path: Path) -> None:
    """DICOM names hold the patient and a number of the data set; the slices of two patients with one id went to one."""
    for folder, first in (("p1", 0), ("p1/b", 1)):
        write_dicom(phantom_scan(first, slices=8, size=24), tmp_path / "data" / folder)
    for path in (tmp_path / "data").rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.PatientID = "same"
        dataset.save_as(path)
    settings = Settings(Target.of(method="all"), keep_patient_ids=True)
    result = reduce_dataset(tmp_path / "data", tmp_path / "out", settings, workers=0, png_dir=tmp_path / "png")
    assert len(list((tmp_path / "png").iterdir())) == result.kept == 16


def test_ids_of_picture_groups_with_one_key(tmp_path: Path) -> None:
    """`p1/000.png` and `p1_010.png` both belong to `p1`: two volumes, and no more slices kept than there are."""
    (tmp_path / "data" / "p1").mkdir(parents=True)
    for place, name in enumerate(("p1/000", "p1/001", "p1_010", "p1_011", "p1_012")):
        noise = np.random.default_rng(place).integers(0, 256, (12, 12), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "data" / f"{name}.png")
    settings = Settings(Target.of(method="all"), patterns=("numbered",), keep_patient_ids=True)
    result = reduce_dataset(tmp_path / "data", tmp_path / "out", settings, workers=0, png_dir=tmp_path / "png")
    manifest = Manifest.read(tmp_path / "out")
    assert sorted(record["slices"] for record in manifest.volumes) == [2, 3]
    assert len({record["volume"] for record in manifest.volumes}) == 2
    assert result.kept == result.slices == 5 == len(list((tmp_path / "png").iterdir()))
