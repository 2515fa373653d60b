from __future__ import annotations

import json
from pathlib import Path

import pytest

from lessismore_transforms.errors import ManifestError
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
    }


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
