from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pydicom
import pytest
from helpers import processes_with, tree
from PIL import Image

from lessismore_transforms.errors import OutputError, RunError
from lessismore_transforms.phantom import phantom_scan, write_demo_data, write_dicom
from lessismore_transforms.pipeline import pool, run, volume_task
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.pipeline.task import Task
from lessismore_transforms.reduction.target import Target


def test_a_second_run_finds_all_done(small_data: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    reduce_dataset(small_data, tmp_path / "out", workers=0)
    assert reduce_dataset(small_data, tmp_path / "out", workers=0).resumed == 4
    assert tree(tmp_path / "out") == expected


@pytest.mark.parametrize("png", [None, "png"])
def test_no_task_is_compared_with_all_others(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, png: str | None
) -> None:
    def refuse(*_: object) -> bool:
        raise AssertionError("tasks are told by their volume")

    monkeypatch.setattr(Task, "__eq__", refuse)
    png_dir = None if png is None else tmp_path / png
    first = reduce_dataset(small_data, tmp_path / "out", workers=0, png_dir=png_dir)
    written = [] if png_dir is None else sorted(path.name for path in png_dir.iterdir())
    assert len(written) == (0 if png_dir is None else first.kept)
    if png_dir is not None:
        shutil.rmtree(png_dir)
    assert reduce_dataset(small_data, tmp_path / "out", workers=0, png_dir=png_dir).resumed == 4
    assert written == ([] if png_dir is None else sorted(path.name for path in png_dir.iterdir()))


def test_new_volumes_are_added_to_a_finished_output(
    small_data: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    data = shutil.copytree(small_data, tmp_path / "data")
    later = sorted(path for path in data.iterdir() if path.is_dir())[1]
    later.rename(tmp_path / "later")
    assert reduce_dataset(data, tmp_path / "out", workers=0).volumes == 3
    (tmp_path / "later").rename(later)
    assert reduce_dataset(data, tmp_path / "out", workers=0).resumed == 3
    assert tree(tmp_path / "out") == expected


def test_volumes_that_went_away_stop_the_run(small_data: Path, tmp_path: Path) -> None:
    data = shutil.copytree(small_data, tmp_path / "data")
    reduce_dataset(data, tmp_path / "out", workers=0)
    gone = sorted(path for path in data.iterdir() if path.is_dir())[0]
    shutil.rmtree(gone)
    with pytest.raises(RunError, match=rf"1 volume of .* \(the first: {gone.name}/ct.nii.gz\) is no longer"):
        reduce_dataset(data, tmp_path / "out", workers=0)


@pytest.mark.parametrize("kind", ["pictures", "dicom"])
def test_a_volume_whose_id_changed_as_the_data_grew_is_not_called_gone(tmp_path: Path, kind: str) -> None:
    data, settings = tmp_path / "data", Settings(patterns=("numbered",))

    def add(name: str, patient: str) -> None:
        if kind == "dicom":
            for path in write_dicom(phantom_scan(0, slices=6, size=32), data / patient):
                dataset = pydicom.dcmread(path)
                dataset.PatientID, dataset.SeriesInstanceUID = patient, "1.2.3"
                dataset.save_as(path)
        for number in range(3 if kind == "pictures" else 0):
            path = data / f"{name}{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(number).integers(0, 255, (16, 16), np.uint8)).save(path)

    add("p1_", "a")
    reduce_dataset(data, tmp_path / "out", settings, workers=0)
    add("p1/", "b")
    with pytest.raises(RunError, match=r"1 volume of .* has another id than before, .* name or series UID was added"):
        reduce_dataset(data, tmp_path / "out", settings, workers=0)


@pytest.mark.parametrize("finished", [0, 1, 3])
def test_an_interrupted_run_goes_on(
    small_data: Path, tmp_path: Path, expected: dict[str, bytes], finished: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def interrupted(work: Task) -> int:
        if len(calls) == finished:
            (tmp_path / "out" / "parts" / ".partial-left").write_text("half")
            raise KeyboardInterrupt
        calls.append(work)
        return volume_task.reduce_volume(work)

    with monkeypatch.context() as patch:
        patch.setattr(pool, "reduce_volume", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reduce_dataset(small_data, tmp_path / "out", workers=0)
    assert reduce_dataset(small_data, tmp_path / "out", workers=0).resumed == finished
    assert tree(tmp_path / "out") == expected


def finished_volumes(output: Path) -> int:
    """Number of volumes of an unfinished run that are done."""
    return sum(path.name != "settings.json" for path in (output / "parts").glob("[!.]*.json"))


def run_and_kill(command: list[str], output: Path) -> bool:
    """Start the command, kill its main process with SIGKILL when it has finished one more volume; whether it still ran.

    All its workers have to be gone soon after.
    """
    mark, before = uuid.uuid4().hex, finished_volumes(output)
    process = subprocess.Popen(
        command, env={**os.environ, "RUN_MARK": mark}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and not (
        (output / "parts" / "settings.json").exists() and finished_volumes(output) > before
    ):
        assert time.monotonic() < deadline, "the run neither goes on nor ends"
        time.sleep(0.001)
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while left := processes_with(mark):
        assert time.monotonic() < deadline, f"workers outlive their parent: {left}"
        time.sleep(0.02)
    return running


def kill_and_compare(data: Path, output: Path, expected: dict[str, bytes], kills: int) -> None:
    command = [sys.executable, "-m", "lessismore_transforms", "reduce", str(data), "--output_dir", str(output)]
    command += ["--workers", "2", "--no_report"]
    killed = 0
    for _ in range(4 * kills):
        if run_and_kill(command, output):
            killed += 1
        else:  # it ended before it could be killed
            assert tree(output) == expected
            shutil.rmtree(output)
        if killed == kills:
            break
    assert killed == kills
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert tree(output) == expected


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for left-over processes in /proc")
def test_a_killed_run_goes_on_with_the_same_bytes(tmp_path: Path) -> None:
    write_demo_data(tmp_path / "data", patients=3, slices=24, size=256)
    reduce_dataset(tmp_path / "data", tmp_path / "expected", workers=0)
    kill_and_compare(tmp_path / "data", tmp_path / "out", tree(tmp_path / "expected"), kills=2)


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    write_demo_data(tmp_path / "data", patients=10, slices=150, size=256)
    reduce_dataset(tmp_path / "data", tmp_path / "expected", workers=0)
    kill_and_compare(tmp_path / "data", tmp_path / "out", tree(tmp_path / "expected"), kills=20)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (Settings(Target.of(threshold=3)), "target HASH at 6 bits, rule exemplars, now HASH at 3 bits"),
        (Settings(pixels="lung"), "pixels clipped, now lung"),
        (Settings(keep_patient_ids=True), "patients hashed with key .*, now as found"),
    ],
)
@pytest.mark.parametrize("interrupted", [True, False])
def test_an_output_of_other_settings_is_refused(
    small_data: Path, tmp_path: Path, settings: Settings, sentence: str, interrupted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if interrupted:
        with monkeypatch.context() as patch:
            patch.setattr(run, "run_tasks", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                reduce_dataset(small_data, tmp_path / "out", workers=0)
    else:
        reduce_dataset(small_data, tmp_path / "out", workers=0)
    before = tree(tmp_path / "out")
    with pytest.raises(RunError, match=sentence):
        reduce_dataset(small_data, tmp_path / "out", settings, workers=0)
    assert tree(tmp_path / "out") == before


def test_a_full_disk_stops_the_run_and_keeps_what_is_done(
    small_data: Path, tmp_path: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []
    original = Path.replace

    def replace(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) > 7:  # settings, then pixels, thumbnails and part of two volumes
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(OutputError, match=r"cannot write to .*npy: No space left on device: make room"):
            reduce_dataset(small_data, tmp_path / "out", workers=0)
    assert reduce_dataset(small_data, tmp_path / "out", workers=0).resumed == 2
    assert tree(tmp_path / "out") == expected


def test_a_setting_left_out_the_second_time_is_refused(small_data: Path, tmp_path: Path) -> None:
    reduce_dataset(small_data, tmp_path / "out", Settings(body=True), workers=0)
    with pytest.raises(RunError, match="holds a run with body True, now None is asked for"):
        reduce_dataset(small_data, tmp_path / "out", workers=0)
