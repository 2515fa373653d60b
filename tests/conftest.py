"""What all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from hypothesis import settings

from lessismore_transforms.phantom import write_demo_data

settings.register_profile("untimed", deadline=None)  # a first call may compile a kernel; nothing is judged by time
settings.load_profile("untimed")


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


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small networks on one thread: two that wait for each other take ten times longer on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def torch_seed() -> Iterator[None]:
    """The same random numbers in each test, and none taken from others."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of four small scans, two as NIfTI and two as DICOM; read only."""
    folder = tmp_path_factory.mktemp("small") / "data"
    write_demo_data(folder, patients=4, slices=24, size=48)
    return folder


@pytest.fixture
def hook() -> Iterator[None]:
    """Leave the hook for uncaught exceptions, which a bundle sets, as it was."""
    before = sys.excepthook
    yield
    sys.excepthook = before
