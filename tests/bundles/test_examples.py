"""The examples run as they stand, in their own process, and keep what `reduce` keeps."""

from __future__ import annotations

import runpy
from pathlib import Path

import nibabel
import numpy as np
import pytest
from helpers import ROOT, bundle_environment
from monai.transforms import Compose, RandAffined
from warm_python import warm_run

from lessismore_transforms.cli.main import main
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduction.hashing import dhash
from lessismore_transforms.reduction.intensity import min_max_uint8
from lessismore_transforms.reduction.selection import exemplars

DOCS = ROOT / "bundles" / "ct_slice_reduction" / "docs"


def run_example(folder: Path, name: str, *arguments: str) -> list[str]:
    """The lines that an example prints, run from an empty folder that it leaves empty."""
    (place := folder / "empty").mkdir()
    env = {**bundle_environment(), "TMPDIR": str(folder / "empty")}
    done = warm_run([str(DOCS / name), *arguments], cwd=place, env=env)
    assert done.returncode == 0, done.stderr
    assert not list(place.iterdir())
    return done.stdout.splitlines()


def kept_by_reduce(data: Path, output: Path) -> dict[str, list[int]]:
    """Kept slices of each case."""
    arguments = ["reduce", str(data), "--output_dir", str(output), "--no_report", "--workers", "0"]
    assert main([*arguments, "--include", "ct.nii.gz", "--include", "*.dcm", "--threshold", "6"]) == 0
    rows = Manifest.read(output).slices.assign(kept=Selection.read(output, "default").slices["kept"].to_numpy())
    return {
        case: group.loc[group["kept"].astype(bool), "index"].tolist()
        for case, group in rows.groupby(rows["path"].str.split("/").str[0])
    }


@pytest.fixture(scope="module")
def pipeline_example() -> dict:
    return runpy.run_path(str(DOCS / "example_pipeline.py"))


def test_pipeline(tmp_path: Path, pipeline_example: dict) -> None:
    pipeline_example["write_phantoms"](tmp_path / "data")
    kept = kept_by_reduce(tmp_path / "data", tmp_path / "out")
    count = sum(map(len, kept.values()))
    assert 2 < count < 96
    assert run_example(tmp_path, "example_pipeline.py") == [
        *(f"{case}: kept the slices {' '.join(map(str, slices))}" for case, slices in kept.items()),
        f"batch: image ({count}, 1, 96, 96) label ({count}, 1, 96, 96)",
    ]


def test_labels_stay_with_their_slices(tmp_path: Path, pipeline_example: dict) -> None:
    pipeline_example["write_phantoms"](tmp_path)
    chain = pipeline_example["pipeline"]().transforms
    assert isinstance(chain[-1], RandAffined)
    cases = pipeline_example["find_cases"](tmp_path)
    assert [Path(case["image"]).name for case in cases] == ["ct.nii.gz", "ct"]
    for case in cases:
        for item in Compose(chain[:-1])(case):
            assert set(np.unique(item["label"])) == {0, 1}
            # The phantoms' label is all bone, from 240 HU on, which is where the example's window ends.
            np.testing.assert_array_equal(item["label"] == 1, item["image"] == 1)


def test_mr(tmp_path: Path) -> None:
    head = runpy.run_path(str(DOCS / "example_mr.py"))["write_head"]
    head(tmp_path / "head.nii.gz")
    # By hand: to LPS, window, hash, first-come exemplars.
    voxels = nibabel.load(tmp_path / "head.nii.gz").get_fdata()[::-1, ::-1].astype(np.float32)
    low, high = np.percentile(voxels, [1, 99]).astype(np.float32)
    expected = []
    for volume in (((voxels - low) / (high - low)).clip(0, 1) * 255, voxels):
        hashes = dhash(min_max_uint8(np.ascontiguousarray(volume.transpose(2, 1, 0), dtype=np.float32)))
        bits = np.array([[bin(int(a) ^ int(b)).count("1") for b in hashes] for a in hashes])
        expected.append(np.flatnonzero(exemplars(bits.__getitem__, len(bits), 6).kept).tolist())
    windowed, plain = expected
    assert windowed != plain
    assert run_example(tmp_path, "example_mr.py") == [
        f"head.nii.gz: what was kept, as a volume (1, 80, 96, {len(windowed)})",
        f"  with the percentile window: {' '.join(map(str, windowed))}",
        f"  without: {' '.join(map(str, plain))}",
    ]
    assert len(windowed) < len(voxels[0, 0]) / 2


def test_the_readme_names_them() -> None:
    text = (DOCS / "README.md").read_text()
    for path in DOCS.glob("example_*.py"):
        assert f"python docs/{path.name} " in text
