from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest
from helpers import tree

from lessismore_transforms.errors import ManifestError
from lessismore_transforms.reduced import selection, table_files
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.select import select
from lessismore_transforms.reduced.selection import Selection, check_name
from lessismore_transforms.reduction.target import Target


def test_a_selection_reads_as_it_was_written(finished: Path, tmp_path: Path) -> None:
    selection = Manifest.read(finished).select(Target.of(threshold=9, rule="pairs"))
    selection.write(tmp_path, "nine")
    again = Selection.read(tmp_path, "nine")
    assert again.target == selection.target
    assert again.kept_ids == selection.kept_ids
    assert again.slices.equals(selection.slices)
    record = json.loads((tmp_path / "selections" / "nine.json").read_text())
    assert record == {
        "name": "nine",
        "method": "hash",
        "rule": "pairs",
        "threshold": 9.0,
        "fraction": None,
        "kept": len(again.kept_ids),
        "slices": 96,
        "crc32": f"0x{zlib.crc32((tmp_path / 'selections' / 'nine.csv').read_bytes()):08x}",
    }
    before = tree(tmp_path)
    selection.write(tmp_path, "nine")
    assert tree(tmp_path) == before


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_table_that_is_not_the_one_of_the_record_is_refused(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    select(output, Target.of(threshold=12), "mine")
    with monkeypatch.context() as stopped:
        stopped.setattr("lessismore_transforms.reduced.selection.write_json", interrupted)
        with pytest.raises(KeyboardInterrupt):
            select(output, Target.of(threshold=3), "mine")
    with pytest.raises(ManifestError, match=r"expected mine.csv to be the table that .*mine.json tells of, with kept"):
        Selection.read(output, "mine")
    select(output, Target.of(threshold=3), "mine")
    assert Selection.read(output, "mine").target.threshold == 3


@pytest.mark.parametrize("seed", [1, 2])
def test_a_select_at_the_same_time_is_waited_for(seed: int, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading table and record, another process replaces both."""
    select(output, Target.of(method="random", fraction=0.5, seed=0), "mine")
    read, left = table_files.read_record, [seed]

    def replaced_before(path: Path) -> dict[str, object]:
        if left:
            select(output, Target.of(method="random", fraction=0.25, seed=left.pop()), "mine")
        return read(path)

    monkeypatch.setattr(selection, "read_record", replaced_before)
    found = Selection.read(output, "mine")
    assert not left
    assert found.target == Target.of(method="random", fraction=0.25, seed=seed)
    assert found.kept_ids == Selection.read(output, "mine").kept_ids


def test_other_line_ends_are_named(output: Path) -> None:
    select(output, Target.of(threshold=3), "mine")
    table = output / "selections" / "mine.csv"
    table.write_bytes(table.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(ManifestError, match=r"with crc32 .*, as an edit, a copy with other line ends or an"):
        Selection.read(output, "mine")


def test_as_many_other_slices_are_not_those_of_the_record(output: Path) -> None:
    for seed in (0, 1):
        select(output, Target.of(method="random", fraction=0.5, seed=seed), f"random{seed}")
    table, other = (output / "selections" / f"random{seed}.csv" for seed in (0, 1))
    assert other.read_bytes() != table.read_bytes()
    table.write_bytes(other.read_bytes())
    with pytest.raises(ManifestError, match=r"random0.json tells of, with crc32 0x[0-9a-f]{8}, found crc32 0x"):
        Selection.read(output, "random0")


def test_a_record_without_a_checksum_is_read_and_its_counts_are_checked(output: Path) -> None:
    select(output, Target.of(threshold=12), "older")
    record = output / "selections" / "older.json"
    told = json.loads(record.read_text())
    del told["crc32"]
    record.write_text(json.dumps(told))
    assert len(Selection.read(output, "older").kept_ids) == told["kept"]
    for name in ("kept", "slices"):
        record.write_text(json.dumps({**told, name: told[name] + 1}))
        with pytest.raises(ManifestError, match=rf"{name} {told[name] + 1}, found {name} {told[name]}, "):
            Selection.read(output, "older")


def test_a_selection_that_is_not_there_names_those_that_are(output: Path) -> None:
    select(output, Target.of(threshold=12), "hash12")
    with pytest.raises(ManifestError, match=r"no selection 'hash3' .*there: default, hash12"):
        Selection.read(output, "hash3")
    with pytest.raises(ValueError, match="is the one of the run itself"):
        select(output, Target.of(), "default")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b"])
def test_selection_names_stay_in_their_folder(name: str) -> None:
    with pytest.raises(ValueError, match="expected a selection name"):
        check_name(name)


@pytest.mark.parametrize("distance", ["inf", "-5", "65", "nan", "1e300"])
def test_a_distance_that_no_hashes_have_is_refused_by_line(output: Path, distance: str) -> None:
    select(output, Target.of(threshold=12), "hash12")
    table = output / "selections" / "hash12.csv"
    first, second, *lines = table.read_text().splitlines()
    table.write_text("\n".join([first, f"{second.rpartition(',')[0]},{distance}", *lines]) + "\n")
    with pytest.raises(ManifestError, match=rf"hash12.csv, line 2: '{distance}' is no distance"):
        Selection.read(output, "hash12")
