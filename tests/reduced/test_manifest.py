from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lessismore_transforms.errors import ManifestError
from lessismore_transforms.reduced.manifest import COLUMNS, Manifest, inside


def test_rows_and_types(finished: Path) -> None:
    manifest = Manifest.read(finished)
    assert tuple(manifest.slices.columns) == COLUMNS
    assert len(manifest.slices) == 4 * 24
    assert manifest.slices["hash"].dtype == np.uint64
    for record, rows in manifest.by_volume():
        assert rows["index"].tolist() == list(range(24))
        assert sorted(rows["rank"]) == list(range(1, 25))
        assert rows["removed_at"].isna().sum() == 1
        survivor = rows.loc[rows["rank"] == 1].iloc[0]
        assert survivor["removed_by"] == ""
        assert rows["slice_id"].tolist() == [f"{record['volume']}_{i:04d}" for i in range(24)]
        assert (np.diff(rows["position_mm"]) > 0).all()


def test_hashes_are_written_as_16_digits(finished: Path) -> None:
    line = (finished / "manifest.csv").read_text().splitlines()[1].split(",")
    text = line[COLUMNS.index("hash")]
    assert text.startswith("0x")
    assert len(text) == 18
    assert int(text, 16) == Manifest.read(finished).slices["hash"][0]


def change_row(row: int, column: str, value: Callable[[str], str]) -> Callable[[list[list[str]]], None]:
    def change(rows: list[list[str]]) -> None:
        cells = rows[row]
        cells[COLUMNS.index(column)] = value(cells[COLUMNS.index(column)])

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (change_row(3, "volume", lambda _: "feedfeedfeedfeed"), "line 4: unknown volume feedfeedfeedfeed"),
        (change_row(3, "index", lambda _: "24"), "line 4: slice 24 is out of range.* has 24 slices"),
        (change_row(3, "index", lambda _: "-1"), "line 4: slice -1 is out of range"),
        (change_row(3, "index", lambda _: "two"), "line 4: 'two' is no index"),
        *(
            (change_row(3, "index", lambda _, text=text: text), f"line 4: '{text}' is no index")  # type: ignore[misc]
            for text in ("9" * 20, "2147483648")
        ),
        (change_row(3, "rank", lambda _: "9" * 20), "line 4: '99999999999999999999' is no rank"),
        (change_row(3, "removed_at", lambda _: "inf"), "line 4: 'inf' is no removed_at"),
        (change_row(3, "position_mm", lambda _: "nan"), "line 4: 'nan' is no position_mm"),
        (change_row(3, "path", lambda path: f"../{path}"), "line 4: the path .* leaves the data set's folder"),
        (change_row(3, "path", lambda _: "/etc/passwd"), "line 4: the path '/etc/passwd' leaves"),
        (change_row(3, "hash", lambda _: "0x12"), "line 4: '0x12' is no hash"),
        (change_row(3, "slice_id", lambda _: "x_0002"), "line 4: the slice_id x_0002 does not fit"),
        (change_row(3, "removed_by", lambda _: "x_0002"), "line 4: removed_by names the unknown slice x_0002"),
        (change_row(3, "rank", lambda _: "99"), "the ranks of volume .* are not 1 to 24"),
        (lambda rows: rows.insert(3, rows[2]), "line 4: a second row for slice 1"),
        (lambda rows: rows.pop(3), "line 4: slice 3 .* rows before it are missing"),
        (lambda rows: rows.pop(), "line 97: the row of slice 23 .* is missing"),
        (lambda rows: rows[0].pop(), "expected the columns slice_id, .*"),
    ],
)
def test_an_edited_manifest_is_refused_by_line(
    output: Path, change: Callable[[list[list[str]]], None], sentence: str
) -> None:
    table = output / "manifest.csv"
    rows = [line.split(",") for line in table.read_text().splitlines()]
    change(rows)
    if len(rows[0]) < len(COLUMNS):
        rows = [row[: len(rows[0])] for row in rows]
    table.write_text("\n".join(map(",".join, rows)) + "\n")
    with pytest.raises(ManifestError, match=f"manifest.csv.*{sentence}"):
        Manifest.read(output)


def test_a_folder_that_is_no_output(tmp_path: Path, output: Path) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.json is missing: expected the output folder"):
        Manifest.read(tmp_path)
    (output / "manifest.json").write_text("{")
    with pytest.raises(ManifestError, match=r"manifest\.json is no JSON"):
        Manifest.read(output)
    (output / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(ManifestError, match="expected format 2, found 99"):
        Manifest.read(output)


def test_paths_stay_inside() -> None:
    assert inside("a/b.dcm")
    assert inside("a/..b/c")
    assert inside("scan 10:30/a.nii.gz")
    assert not any(map(inside, ("", "/a", "a/../../b", "..")))


def test_a_record_without_its_parts_is_refused(output: Path) -> None:
    (output / "manifest.json").write_text('{"format": 2, "settings": {}}')
    with pytest.raises(ManifestError, match=r"manifest\.json lacks volumes: undo the edit or reduce again"):
        Manifest.read(output)
