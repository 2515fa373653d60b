from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lessismore_transforms.errors import RunError
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
