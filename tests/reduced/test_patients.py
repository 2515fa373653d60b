from __future__ import annotations

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import pytest

from lessismore_transforms.errors import OutputError
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.patients import default_key_path, hash_patient, load_key


def test_patients_are_hashed_with_the_users_key(small_data: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123")
    reduce_dataset(small_data, tmp_path / "hashed", workers=0, patient_key=key)
    reduce_dataset(small_data, tmp_path / "found", Settings(keep_patient_ids=True), workers=0)
    found = Manifest.read(tmp_path / "found").slices
    hashed = Manifest.read(tmp_path / "hashed").slices
    assert found["patient"].unique().tolist() == [f"phantom_000{i}" for i in range(4)]
    secret = key.read_bytes()
    assert hashed["patient"].tolist() == [hash_patient(patient, secret) for patient in found["patient"]]
    assert (hashed["slice_id"] == found["slice_id"]).all()
    key.write_text("abc")
    with pytest.raises(ValueError, match="has 3 characters"):
        reduce_dataset(small_data, tmp_path / "x", workers=0, patient_key=key)
    with pytest.raises(ValueError, match="cannot read the patient key"):
        reduce_dataset(small_data, tmp_path / "x", workers=0, patient_key=tmp_path / "missing")


def test_the_default_key_is_made_once_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    key = load_key()
    assert len(key) == 64
    assert load_key() == key
    assert default_key_path().stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    with pytest.raises(
        OutputError, match=r"cannot write the patient key .*: name a file of your own with --patient_key"
    ):
        load_key()


def no_links(*paths: Any) -> NoReturn:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_file_system_without_hard_links_holds_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(lambda _: load_key(), range(8)))
    assert [len(key) for key in keys] == [64]
    assert [path.name for path in default_key_path().parent.iterdir()] == ["patient.key"]
    assert default_key_path().stat().st_mode & 0o777 == 0o600
    assert {load_key()} == keys


def test_a_key_that_is_being_written_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = default_key_path()
    path.parent.mkdir()
    path.touch()
    writer = threading.Thread(target=lambda: (time.sleep(0.05), path.write_text("0123456789abcdef")))
    writer.start()
    assert load_key() == b"0123456789abcdef"
    writer.join()
