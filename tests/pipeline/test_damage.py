"""An output folder that lost or damaged a file is made whole by the same command, or one sentence names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import read_index, tree

from lessismore_transforms.errors import ManifestError, RunError
from lessismore_transforms.phantom import phantom_scan, write_nifti
from lessismore_transforms.pipeline import pool
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.select import select
from lessismore_transforms.reduced.store import fill_store
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.wording import counted

SETTINGS = Settings(Target.of(method="ssim", threshold=0.6), keep_distances=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("damage") / "data"
    for seed in range(2):
        write_nifti(phantom_scan(seed, slices=10, size=40), root / f"p{seed}" / "ct.nii.gz")
    return root


@pytest.fixture(scope="module")
def whole(data: Path) -> Path:
    out = data.parent / "out"
    reduce_dataset(data, out, SETTINGS, workers=0)
    return out


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[min(len(content) // 2, 200)] ^= 1
    path.write_bytes(content)


def foreign(path: Path) -> None:
    np.save(path, np.load(path)[::-1])


def archive(path: Path) -> None:
    array = np.load(path)
    with path.open("wb") as file:
        np.savez(file, array)


HOW: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "short": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "flipped": flip,
    "foreign": foreign,
    "more": lambda path: np.save(path, np.concatenate([np.load(path)] * 2)),
    "archive": archive,
    "fortran": lambda path: np.save(path, np.asfortranarray(np.load(path))),
    "flat": lambda path: np.save(path, np.load(path).reshape(-1)),
    "float": lambda path: np.save(path, np.load(path).astype(np.float32)),
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("where", ["store", "store/thumbnails", "distances"])
def test_an_array_is_made_anew(whole: Path, data: Path, tmp_path: Path, where: str, how: str, capfd) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    path = sorted((out / where).glob("*.npy"))[0]
    HOW[how](path)
    reduce_dataset(data, out, SETTINGS, workers=0)
    assert {**tree(out), "run.jsonl": b""} == {**tree(whole), "run.jsonl": b""}
    assert f"damaged: {where}/{path.name}" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["manifest.csv", "selections/default.csv", "selections/default.json"])
@pytest.mark.parametrize("how", ["missing", "empty", "short", "flipped"])
def test_a_table_is_made_anew(whole: Path, data: Path, tmp_path: Path, name: str, how: str, capfd) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    HOW[how](out / name)
    reduce_dataset(data, out, SETTINGS, workers=0)
    assert {**tree(out), "run.jsonl": b""} == {**tree(whole), "run.jsonl": b""}
    assert f"damaged: {name} in {out}: all volumes are reduced again" in capfd.readouterr().err


def pictures(out: Path, selection: str) -> dict[str, bytes]:
    slices = SliceSelectionDataset(out, selection)
    return {name: slices.picture(index).tobytes() for index, name in enumerate(slices.slice_ids)}


@pytest.mark.parametrize("how", ["missing", "empty", "cut", "swapped", "foreign"])
@pytest.mark.parametrize("filled", ["before", "after", "never"])
def test_the_index_of_the_store_is_believed_by_nobody(
    whole: Path, data: Path, tmp_path: Path, how: str, filled: str
) -> None:
    """Whatever happens to it, each slice keeps its picture, and `reduce` writes it again."""
    out, true = Path(shutil.copytree(whole, tmp_path / "out")), pictures(whole, "default")
    selection, _ = select(out, Target.of(method="ssim", threshold=0.9), "more")
    if filled == "before":
        fill_store(out, selection)
    index = out / "store" / "index.csv"
    first, *lines = index.read_text().splitlines()
    (a, row_a), (b, row_b) = (line.split(",") for line in lines[-2:])
    texts = {
        "missing": None,
        "empty": "",
        "cut": "\n".join([first, lines[0]]),
        "swapped": "\n".join([first, *lines[:-2], f"{a},{row_b}", f"{b},{row_a}"]),
        "foreign": f"{first}\n../../x_0001,0\n",
    }
    index.unlink() if texts[how] is None else index.write_text(texts[how])
    if filled == "after":
        fill_store(out, selection)
    for _ in range(2):
        assert pictures(out, "default") == true
        if filled != "never":
            more = pictures(out, "more")
            assert {name: more[name] for name in true} == true
            assert len(more) == len(selection.kept_ids)
        reduce_dataset(data, out, SETTINGS, workers=0)
    rows = read_index(out)
    assert len(rows) == len(selection.kept_ids if filled != "never" else true)
    for name, row in rows.items():
        array = np.load(out / "store" / f"{name.rpartition('_')[0]}.npy")
        assert array[row].tobytes() == (more if filled != "never" else true)[name]
    if filled == "never":
        assert tree(out / "store") == tree(whole / "store")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda info: info["volumes"][0]["spacing_mm"].pop(), "volume 1: spacing_mm is not of three numbers"),
        (lambda info: info["volumes"][0].update(volume="../../x"), "volume 1: its id is not of 16 hex digits"),
        (lambda info: info["volumes"].__setitem__(1, 7), "volume 2: expected an object, found int"),
        (lambda info: info["volumes"][1].update(height="<b>"), "volume 2: height is no whole number from 1"),
        (lambda info: info.update(volumes=9), "lacks volumes"),
        (lambda info: info["volumes"][0].update(plane="coronal"), "was changed since it was written"),
    ],
)
def test_a_manifest_that_was_changed_is_refused(
    whole: Path, data: Path, tmp_path: Path, change: Callable[[dict], object], sentence: str
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    info = json.loads((out / "manifest.json").read_text())
    change(info)
    (out / "manifest.json").write_text(json.dumps(info))
    with pytest.raises(ManifestError, match=sentence):
        reduce_dataset(data, out, SETTINGS, workers=0)


@pytest.mark.parametrize("how", ["missing", "short", "flipped", "foreign", "flat", "archive"])
def test_fill_store_looks_at_what_is_there(whole: Path, tmp_path: Path, how: str) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    select(out, Target.of(method="ssim", threshold=0.9), "more")
    selection = Manifest.read(out).read_selection("more")
    fill_store(out, selection)
    before = pictures(out, "more")
    path = sorted((out / "store").glob("*.npy"))[0]
    HOW[how](path)
    assert fill_store(out, selection) > 0
    assert pictures(out, "more") == before
    assert fill_store(out, selection) == 0


def test_a_slice_that_fill_store_added_is_looked_at_too(whole: Path, data: Path, tmp_path: Path) -> None:
    """One bit of its last picture: `fill_store` reads the volume again, `reduce` makes the store of its run again."""
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    selection, lacking = select(out, Target.of(method="ssim", threshold=0.9), "more")
    assert fill_store(out, selection) == lacking > 0
    path = sorted((out / "store").glob("*.npy"))[0]
    intact = path.read_bytes()
    for again in (lambda: fill_store(out, selection), lambda: reduce_dataset(data, out, SETTINGS, workers=0)):
        path.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
        again()
        fill_store(out, selection)
        assert path.read_bytes() == intact
    (out / "store" / "filled.json").write_text("{")
    reduce_dataset(data, out, SETTINGS, workers=0)
    assert {**tree(out / "store")} == {**tree(whole / "store")}


@pytest.mark.parametrize("damaged", ["store/thumbnails/*.npy", "manifest.csv", ""])
def test_added_slices_do_not_leave_the_store_without_a_word(
    whole: Path, data: Path, tmp_path: Path, damaged: str, capfd
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    selection, lacking = select(out, Target.of(method="ssim", threshold=0.9), "more")
    added = fill_store(out, selection)
    before = read_index(out)
    if damaged:
        sorted(out.glob(damaged))[0].unlink()
    reduce_dataset(data, out, SETTINGS, workers=0)
    lost = len(before) - len(read_index(out))
    assert 0 <= lost <= added == lacking
    assert (lost > 0) == bool(damaged)
    said = (
        f"the store lacks {counted(lost, 'slice')} that `select --fill_store` had added, as volumes were reduced "
        "again: give that command again"
    )
    assert (said in capfd.readouterr().err) == bool(damaged)
    assert fill_store(out, selection) == lost
    assert read_index(out).keys() == before.keys()


def interrupted(data: Path, out: Path, done: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is stopped when `done` volumes are finished."""
    count, original = [0], pool.reduce_volume

    def some(task: object) -> int:
        count[0] += 1
        if count[0] > done:
            raise KeyboardInterrupt
        return original(task)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(pool, "reduce_volume", some)
        with pytest.raises(KeyboardInterrupt):
            reduce_dataset(data, out, SETTINGS, workers=0)


def test_a_resumed_run_does_not_drop_finished_volumes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A is finished, B is added and interrupted, a part of A is gone, as a share that is not mounted: refused."""
    root = Path(shutil.copytree(data, tmp_path / "data"))
    out = tmp_path / "out"
    reduce_dataset(root, out, SETTINGS, workers=0)
    for seed in (2, 3):
        write_nifti(phantom_scan(seed, slices=6, size=40), root / f"q{seed}" / "ct.nii.gz")
    interrupted(root, out, 1, monkeypatch)
    shutil.move(root / "p0", tmp_path / "p0")
    with pytest.raises(RunError, match=r"1 volume of .*p0/ct.nii.gz\) is no longer in the data set: bring it back"):
        reduce_dataset(root, out, SETTINGS, workers=0)
    shutil.move(tmp_path / "p0", root / "p0")
    assert reduce_dataset(root, out, SETTINGS, workers=0).volumes == 4


@pytest.mark.parametrize("what", ["another version", "a damaged part", "a damaged part and no manifest"])
def test_no_finished_volume_is_dropped_with_the_parts(
    data: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(data, tmp_path / "data"))
    out = tmp_path / "out"
    reduce_dataset(root, out, SETTINGS, workers=0)
    gone = next(record["volume"] for record in Manifest.read(out).volumes if record["path"] == "p0/ct.nii.gz")
    write_nifti(phantom_scan(2, slices=6, size=40), root / "q2" / "ct.nii.gz")
    interrupted(root, out, 0, monkeypatch)
    if what == "another version":
        settings = json.loads((out / "parts" / "settings.json").read_text())
        (out / "parts" / "settings.json").write_text(json.dumps({**settings, "version": "0.0.9, format 2"}))
    else:
        HOW["short"](out / "parts" / f"{gone}.json")
    if what == "a damaged part and no manifest":
        (out / "manifest.json").unlink()
    shutil.move(root / "p0", tmp_path / "p0")
    before = tree(out)
    with pytest.raises(RunError, match=r"1 volume of .*is no longer in the data set: bring it back"):
        reduce_dataset(root, out, SETTINGS, workers=0)
    assert tree(out) == before
    shutil.move(tmp_path / "p0", root / "p0")
    assert reduce_dataset(root, out, SETTINGS, workers=0).volumes == 3


@pytest.mark.parametrize("how", ["empty", "short", "flipped"])
def test_a_damaged_part_is_made_anew(
    data: Path, whole: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(data, tmp_path / "out", 1, monkeypatch)
    (part,) = [path for path in (tmp_path / "out" / "parts").glob("*.json") if path.stem != "settings"]
    HOW[how](part)
    reduce_dataset(data, tmp_path / "out", SETTINGS, workers=0)
    assert {**tree(tmp_path / "out"), "run.jsonl": b""} == {**tree(whole), "run.jsonl": b""}


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_lost_log_is_begun_anew(
    data: Path, whole: Path, tmp_path: Path, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if done == 2:
        shutil.copytree(whole, tmp_path / "out")
    else:
        interrupted(data, tmp_path / "out", done, monkeypatch)
    (tmp_path / "out" / "run.jsonl").unlink()
    assert reduce_dataset(data, tmp_path / "out", SETTINGS, workers=0).resumed == done
    assert (tmp_path / "out" / "run.jsonl").is_file()
    assert tree(tmp_path / "out") == tree(whole)


def test_the_manifest_knows_the_mean_of_the_store(whole: Path) -> None:
    pixels = np.concatenate([np.load(path).reshape(-1) for path in (whole / "store").glob("*.npy")]) / 255
    store = Manifest.read(whole).info["store"]
    assert store["pixels"] == len(pixels)
    assert store["mean"] == pytest.approx(pixels.mean(), abs=1e-6)
    assert store["std"] == pytest.approx(pixels.std(), abs=1e-6)


@pytest.mark.parametrize("how", ["missing", "empty", "flat", "float", "few", "archive"])
def test_a_data_set_refuses_a_damaged_store(whole: Path, tmp_path: Path, how: str) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    path = sorted((out / "store").glob("*.npy"))[0]
    {**HOW, "few": lambda path: np.save(path, np.load(path)[:0])}[how](path)
    with pytest.raises(
        ManifestError, match=rf"{path.name}.*`reduce` run again, or `select --fill_store`, makes it again"
    ):
        list(SliceSelectionDataset(out))  # type: ignore[call-overload]
