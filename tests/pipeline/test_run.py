from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import nibabel
import numpy as np
import pytest
from helpers import tree
from PIL import Image

from lessismore_transforms import executor, patients, runner, task
from lessismore_transforms.errors import ManifestError, OutputError, RunError, VolumeError
from lessismore_transforms.phantom import phantom_scan, write_demo_data, write_dicom, write_nifti
from lessismore_transforms.pipeline.run import estimate, reduce_dataset, select
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.manifest import Manifest, Selection
from lessismore_transforms.reduced.store import fill_store, read_index
from lessismore_transforms.reduction.target import Target


@pytest.fixture(scope="module")
def expected(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an undisturbed run in one process."""
    output = tmp_path_factory.mktemp("runner") / "out"
    summary = reduce_dataset(small_data, output, workers=0)
    assert (summary.volumes, summary.slices, summary.failures, summary.resumed) == (4, 96, [], 0)
    return tree(output)


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


def test_a_second_run_finds_all_done(small_data: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    reduce_dataset(small_data, tmp_path / "out", workers=0)
    assert reduce_dataset(small_data, tmp_path / "out", workers=0).resumed == 4
    assert tree(tmp_path / "out") == expected


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
    with pytest.raises(RunError, match=rf"1 volumes of .* \(the first: {gone.name}/ct.nii.gz\) are no longer"):
        reduce_dataset(data, tmp_path / "out", workers=0)


@pytest.mark.parametrize("finished", [0, 1, 3])
def test_an_interrupted_run_goes_on(
    small_data: Path, tmp_path: Path, expected: dict[str, bytes], finished: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def interrupted(work: task.Task) -> int:
        if len(calls) == finished:
            (tmp_path / "out" / "parts" / ".partial-left").write_text("half")
            raise KeyboardInterrupt
        calls.append(work)
        return task.reduce_volume(work)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "reduce_volume", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reduce_dataset(small_data, tmp_path / "out", workers=0)
    assert reduce_dataset(small_data, tmp_path / "out", workers=0).resumed == finished
    assert tree(tmp_path / "out") == expected


def run_and_kill(command: list[str], after: float) -> bool:
    """Start the command, kill its main process with SIGKILL after some seconds; whether it was still running.

    All its workers have to be gone soon after.
    """
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        command, env={**os.environ, "RUN_MARK": mark}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(after)
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 20
    while left := with_mark(mark):
        assert time.monotonic() < deadline, f"workers outlive their parent: {left}"
        time.sleep(0.02)
    return True


def with_mark(mark: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(folder.name)
        except OSError:
            continue
    return found


def kill_and_compare(data: Path, output: Path, expected: dict[str, bytes], kills: int) -> None:
    command = [sys.executable, "-m", "lessismore_transforms", "reduce", str(data), "--output_dir", str(output)]
    command += ["--workers", "2", "--no_report"]
    begin = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    duration = time.monotonic() - begin
    assert tree(output) == expected
    random = np.random.default_rng(0)
    killed = 0
    while killed < kills:
        shutil.rmtree(output, ignore_errors=True)
        while run_and_kill(command, float(random.uniform(0.2, 1.0)) * duration):
            killed += 1
        assert tree(output) == expected


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for left-over processes in /proc")
def test_a_killed_run_goes_on_with_the_same_bytes(small_data: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    kill_and_compare(small_data, tmp_path / "out", expected, kills=2)


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    write_demo_data(tmp_path / "data", patients=10, slices=150, size=256)
    reduce_dataset(tmp_path / "data", tmp_path / "expected", workers=0)
    kill_and_compare(tmp_path / "data", tmp_path / "out", tree(tmp_path / "expected"), kills=20)


def workers_of(process: subprocess.Popen[bytes], mark: str) -> list[int]:
    """Its worker processes: those whose parent is neither the process itself nor its own parent."""
    found = []
    for name in with_mark(mark):
        try:
            parent = int((Path("/proc") / name / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent not in (process.pid, os.getpid()):
            found.append(int(name))
    return found


@pytest.mark.slow
def test_twenty_killed_workers(tmp_path: Path) -> None:
    write_demo_data(tmp_path / "data", patients=10, slices=150, size=256)
    reduce_dataset(tmp_path / "data", tmp_path / "expected", workers=0)
    expected, random, killed = tree(tmp_path / "expected"), np.random.default_rng(1), 0
    while killed < 20:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        mark = uuid.uuid4().hex
        command = [sys.executable, "-m", "lessismore_transforms", "reduce", str(tmp_path / "data"), "--no_report"]
        command += ["--output_dir", str(tmp_path / "out"), "--workers", "2"]
        with (
            (tmp_path / "errors").open("w") as errors,
            subprocess.Popen(command, env={**os.environ, "RUN_MARK": mark}, stderr=errors) as process,
        ):
            for _ in range(2):
                time.sleep(float(random.uniform(0.3, 1.2)))
                if workers := workers_of(process, mark):
                    os.kill(int(random.choice(workers)), signal.SIGKILL)
                    killed += 1
        assert process.returncode == 0, (tmp_path / "errors").read_text()
        assert tree(tmp_path / "out") == expected


class Mortal(Executor):
    """Runs tasks in this process; one volume kills it."""

    def __init__(self, deadly: str, deaths: list[str]) -> None:
        self.deadly, self.deaths, self.broken = deadly, deaths, False

    def submit(self, fn, /, *args, **kwargs):
        future: Future[int] = Future()
        if self.broken or args[0].volume.path.startswith(self.deadly):
            self.broken = True
            self.deaths.append(args[0].volume.path)
            future.set_exception(BrokenProcessPool())
            return future
        return executor.SerialExecutor().submit(fn, *args, **kwargs)


def test_a_volume_that_kills_its_process_is_listed_and_the_others_finish(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths: list[str] = []
    monkeypatch.setattr(runner, "make_executor", lambda workers, scheduler=None: Mortal("phantom_0001", deaths))
    summary = reduce_dataset(small_data, tmp_path / "out", workers=2)
    assert summary.volumes == 3
    ((path, reason),) = summary.failures
    assert path.startswith("phantom_0001")
    assert "its process died 3 times" in reason


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
    assert failure == {"path": name, "reason": summary.failures[0][1]}
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
    assert "1 slices cannot be read" in manifest.volumes[0]["notes"][0]
    assert not manifest.select(Target.of(fraction=1)).slices["kept"][4]
    assert manifest.select(Target.of(fraction=1)).slices["kept"].sum() == 9
    for path in files:
        path.write_bytes(path.read_bytes()[:-7])
    summary = reduce_dataset(tmp_path / "data", tmp_path / "none", workers=0)
    assert "none of its 10 slices can be read" in summary.failures[0][1]
    assert len(Manifest.read(tmp_path / "none").slices) == 0


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
            patch.setattr(runner, "_run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                reduce_dataset(small_data, tmp_path / "out", workers=0)
    else:
        reduce_dataset(small_data, tmp_path / "out", workers=0)
    before = tree(tmp_path / "out")
    with pytest.raises(RunError, match=sentence):
        reduce_dataset(small_data, tmp_path / "out", settings, workers=0)
    assert tree(tmp_path / "out") == before


def test_a_folder_of_something_else_is_refused(small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="is not empty and holds no reduction"):
        reduce_dataset(small_data, tmp_path / "out", workers=0)
    with pytest.raises(RunError, match="lies inside the data set"):
        reduce_dataset(small_data, small_data / "out", workers=0)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write to .*file"):
        reduce_dataset(small_data, tmp_path / "file" / "out", workers=0)


def test_a_full_disk_stops_the_run_and_keeps_what_is_done(
    small_data: Path, tmp_path: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fsync(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 7:  # settings, then pixels, thumbnails and part of two volumes
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OutputError, match=r"cannot write to .*npy: No space left on device: make room"):
            reduce_dataset(small_data, tmp_path / "out", workers=0)
    assert reduce_dataset(small_data, tmp_path / "out", workers=0).resumed == 2
    assert tree(tmp_path / "out") == expected


def test_one_manifest_equals_a_run_per_threshold(small_data: Path, tmp_path: Path) -> None:
    reduce_dataset(small_data, tmp_path / "all", workers=0)
    for threshold in range(65):
        rule = ("exemplars", "pairs")[threshold % 2]
        target = Target.of(threshold=threshold, rule=rule)
        reduce_dataset(small_data, tmp_path / f"run{threshold}", Settings(target), workers=0)
        select(tmp_path / "all", target, f"t{threshold}")
        for suffix in ("csv", "json"):
            drawn = (tmp_path / "all" / "selections" / f"t{threshold}.{suffix}").read_text()
            own = (tmp_path / f"run{threshold}" / "selections" / f"default.{suffix}").read_text()
            assert drawn.replace(f'"t{threshold}"', '"default"') == own
        assert (tmp_path / f"run{threshold}" / "manifest.csv").read_bytes() == (
            tmp_path / "all" / "manifest.csv"
        ).read_bytes()


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
        "constant": np.full((20, 30, 5), 7, np.int16),
        "nan": np.full((20, 30, 2), np.nan, np.float32),
        "two_by_one": np.zeros((1, 2, 3), np.int16),
    }.items():
        nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "data" / f"{name}.nii.gz")
    assert reduce_dataset(tmp_path / "data", tmp_path / "out", workers=0).failures == []
    manifest = Manifest.read(tmp_path / "out")
    selection = Selection.read(tmp_path / "out").slices
    kept = {record["path"]: int(selection["kept"][rows.index].sum()) for record, rows in manifest.by_volume()}
    assert kept == {"one.nii.gz": 1, "constant.nii.gz": 1, "nan.nii.gz": 1, "two_by_one.nii.gz": 1}
    notes = {record["path"]: record["notes"] for record in manifest.volumes}
    assert notes["nan.nii.gz"] == ["1200 voxels were NaN or infinite: set to the lowest value of their slice"]


def test_patients_are_hashed_with_the_users_key(small_data: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123")
    reduce_dataset(small_data, tmp_path / "hashed", workers=0, patient_key=key)
    reduce_dataset(small_data, tmp_path / "found", Settings(keep_patient_ids=True), workers=0)
    found = Manifest.read(tmp_path / "found").slices
    hashed = Manifest.read(tmp_path / "hashed").slices
    assert found["patient"].unique().tolist() == [f"phantom_000{i}" for i in range(4)]
    secret = key.read_bytes()
    assert hashed["patient"].tolist() == [patients.hash_patient(patient, secret) for patient in found["patient"]]
    assert (hashed["slice_id"] == found["slice_id"]).all()
    key.write_text("abc")
    with pytest.raises(ValueError, match="has 3 characters"):
        reduce_dataset(small_data, tmp_path / "x", workers=0, patient_key=key)
    with pytest.raises(ValueError, match="cannot read the patient key"):
        reduce_dataset(small_data, tmp_path / "x", workers=0, patient_key=tmp_path / "missing")


def test_the_default_key_is_made_once_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    key = patients.load_key()
    assert len(key) == 64
    assert patients.load_key() == key
    assert patients.default_key_path().stat().st_mode & 0o777 == 0o600


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


def test_an_estimate_writes_nothing(small_data: Path, tmp_path: Path) -> None:
    expected = estimate(small_data, Settings(), workers=0)
    assert (expected.volumes, expected.slices) == (4, 96)
    assert 4 <= expected.kept <= 96
    assert expected.store_bytes >= expected.kept * 48 * 48
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="found none: the folder holds no files"):
        reduce_dataset(tmp_path, tmp_path.parent / "out", workers=0)
    (tmp_path / "a.txt").touch()
    with pytest.raises(RunError, match=r"skipped a\.txt \(not an image in a known format\) and 0 more"):
        reduce_dataset(tmp_path, tmp_path.parent / "out", workers=0)


@pytest.mark.parametrize("last", ["index.csv", "default.csv", "default.json", "manifest.csv", "manifest.json"])
def test_an_addition_that_is_killed_while_it_is_assembled(
    small_data: Path, tmp_path: Path, expected: dict[str, bytes], last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands already, the old tables and the new ones are never mixed."""
    data = shutil.copytree(small_data, tmp_path / "data")
    later = sorted(path for path in data.iterdir() if path.is_dir())[1]
    later.rename(tmp_path / "later")
    reduce_dataset(data, tmp_path / "out", workers=0)
    (tmp_path / "later").rename(later)

    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if Path(target).name == last and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        reduce_dataset(data, tmp_path / "out", workers=0)
    assert reduce_dataset(data, tmp_path / "out", workers=0).volumes == 4
    assert tree(tmp_path / "out") == expected


def test_filled_slices_stay_and_stale_selections_are_refused(small_data: Path, tmp_path: Path) -> None:
    data = shutil.copytree(small_data, tmp_path / "data")
    later = sorted(path for path in data.iterdir() if path.is_dir())[0]
    later.rename(tmp_path / "later")
    reduce_dataset(data, tmp_path / "out", workers=0)
    selection, lacking = select(tmp_path / "out", Target.of(threshold=0), "all")
    assert fill_store(tmp_path / "out", selection) == lacking > 0
    before = read_index(tmp_path / "out")
    (tmp_path / "later").rename(later)
    reduce_dataset(data, tmp_path / "out", workers=0)
    assert read_index(tmp_path / "out").items() >= before.items()
    with pytest.raises(ManifestError, match=r"names other slices than manifest\.csv.*make it again with `select`"):
        SliceSelectionDataset(tmp_path / "out", "all")
    assert len(SliceSelectionDataset(tmp_path / "out")) == len(Selection.read(tmp_path / "out").kept_ids)


def test_changed_files_are_not_taken_into_a_store(tmp_path: Path) -> None:
    path = write_nifti(phantom_scan(0, slices=8, size=32), tmp_path / "data" / "ct.nii.gz")
    reduce_dataset(tmp_path / "data", tmp_path / "out", Settings(Target.of(threshold=12)), workers=0)
    selection, lacking = select(tmp_path / "out", Target.of(method="all"), "all")
    assert lacking
    path.unlink()
    write_nifti(phantom_scan(1, slices=8, size=32), path)
    before = tree(tmp_path / "out")
    with pytest.raises(ManifestError, match=r"ct\.nii\.gz changed since it was reduced: reduce again"):
        fill_store(tmp_path / "out", selection)
    assert tree(tmp_path / "out") == before


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
    with pytest.raises(RunError, match="png lies inside the data set"):
        reduce_dataset(tmp_path / "data", tmp_path / "x", settings, workers=0, png_dir=tmp_path / "data" / "png")


def test_odd_names_and_folders(tmp_path: Path) -> None:
    for name in ("scan 10:30, left", "a\\b", "Müller", 'with "quotes"'):
        write_nifti(phantom_scan(0, slices=3, size=32), tmp_path / "data" / name / "ct.nii.gz")
    (tmp_path / "data" / "two\nlines.txt").touch()
    with open(os.fsencode(tmp_path / "data") + b"/M\xfcller.txt", "w"):  # noqa: PTH123
        pass
    summary = reduce_dataset(tmp_path / "data", tmp_path / "out", workers=0)
    assert (summary.volumes, summary.skipped) == (4, 2)
    assert len(Manifest.read(tmp_path / "out").slices) == 12
    assert reduce_dataset(tmp_path / "data", tmp_path / "out", workers=0).resumed == 4


def test_a_setting_left_out_the_second_time_is_refused(small_data: Path, tmp_path: Path) -> None:
    reduce_dataset(small_data, tmp_path / "out", Settings(body=True), workers=0)
    with pytest.raises(RunError, match="holds a run with body True, now None is asked for"):
        reduce_dataset(small_data, tmp_path / "out", workers=0)


def test_a_changed_volume_reduced_again_by_a_run_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index of before, with slices that fill_store added, no longer tells what the volume's file holds."""
    path = write_nifti(phantom_scan(0, slices=12, size=32), tmp_path / "data" / "ct.nii.gz")
    settings = Settings(Target.of(threshold=12))
    reduce_dataset(tmp_path / "data", tmp_path / "out", settings, workers=0)
    selection, _ = select(tmp_path / "out", Target.of(method="all"), "all")
    assert fill_store(tmp_path / "out", selection)
    path.unlink()
    write_nifti(phantom_scan(1, slices=12, size=32), path)

    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runner, "_assemble", killed)
        with pytest.raises(KeyboardInterrupt):
            reduce_dataset(tmp_path / "data", tmp_path / "out", settings, workers=0)
    assert reduce_dataset(tmp_path / "data", tmp_path / "out", settings, workers=0).resumed == 1
    reduce_dataset(tmp_path / "data", tmp_path / "fresh", settings, workers=0)
    assert read_index(tmp_path / "out") == read_index(tmp_path / "fresh")
    again, fresh = SliceSelectionDataset(tmp_path / "out"), SliceSelectionDataset(tmp_path / "fresh")
    for i in range(len(fresh)):
        np.testing.assert_array_equal(again[i]["image"], fresh[i]["image"])
