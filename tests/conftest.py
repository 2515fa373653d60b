"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lessismore_transforms.phantom import write_demo_data
from lessismore_transforms.volumes import Found, read_slices

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("LESSISMORE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "ct").is_dir():
        pytest.skip(f"no real images at {folder}; set LESSISMORE_TEST_DATA to a folder that holds ct/")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test touches the patient key of whoever runs it; all tests share one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("configuration")))
        yield


def tree(folder: Path, *, without: tuple[str, ...] = ("run.jsonl",)) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in without
    }


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of four small scans, two as NIfTI and two as DICOM; read only."""
    folder = tmp_path_factory.mktemp("small") / "data"
    write_demo_data(folder, patients=4, slices=24, size=48)
    return folder


def stack(found: Found, root: Path, number: int = 0) -> np.ndarray:
    """All slices of a found volume, each of which can be read, as one array (S, H, W)."""
    volume = found.volumes[number]
    hu = np.full(volume.shape, -9999, dtype=np.float64)
    for piece in read_slices(volume, root):
        assert not piece.reason
        hu[piece.index] = piece.hu
    return hu
