"""Outputs of a reduction whose volumes are copies of one slice, or change from slice to slice; views of SimCLR."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers import BUNDLES
from scipy.ndimage import gaussian_filter

from lessismore_transforms.cli.main import main

PATIENTS, SLICES, SIZE = 5, 8, 48


@pytest.fixture(scope="session")
def simclr_views() -> Path:
    return BUNDLES / "ct_simclr_pretraining" / "configs" / "train.json"


@pytest.fixture(scope="session")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each volume is one slice, eight times; the volumes are of five patients and have nothing in common."""
    return reduced(tmp_path_factory.mktemp("copies"), smoothness=0)


@pytest.fixture(scope="session")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes that change from slice to slice; `default` keeps all slices, `hash3` fewer."""
    out = reduced(tmp_path_factory.mktemp("changing"), smoothness=3)
    assert main(["select", str(out), "--threshold", "3", "--name", "hash3"]) == 0
    return out


def reduced(folder: Path, *, smoothness: float) -> Path:
    """An output of random smooth volumes, all slices stored; smoothness across slices in slices, 0 for equal slices."""
    random = np.random.default_rng(0)
    for patient in range(PATIENTS):
        noise = random.normal(size=(SIZE, SIZE, SLICES if smoothness else 1))
        body = gaussian_filter(noise, (4, 4, smoothness))
        body = np.broadcast_to(body / body.std() * 300, (SIZE, SIZE, SLICES)).astype(np.int16)
        path = folder / "data" / f"patient{patient}" / "ct.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(body, np.diag([1.0, 1.0, 2.5, 1.0])), path)
    given = ["reduce", folder / "data", "--output_dir", folder / "OUT", "--method", "all", "--no_report"]
    assert main(list(map(str, given))) == 0
    return folder / "OUT"
