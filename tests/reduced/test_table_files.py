from __future__ import annotations

from pathlib import Path

import pytest

from lessismore_transforms.errors import ManifestError
from lessismore_transforms.reduced.table_files import format_number, parse_slice_id, read_table, slice_id, write_table


def test_numbers_as_the_tables_hold_them() -> None:
    assert [format_number(value) for value in (float("nan"), 6.0, 0.5)] == ["", "6", "0.5"]


@pytest.mark.parametrize(("volume", "index"), [("aaaaaaaaaaaaaaaa", 0), ("a_b", 12), ("f", 12345)])
def test_a_slice_id_is_taken_apart_again(volume: str, index: int) -> None:
    assert parse_slice_id(slice_id(volume, index)) == (volume, index)


def test_a_table_of_other_columns_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", ("one", "two"), [("1", "")])
    assert read_table(tmp_path / "a.csv", ("one", "two")).values.tolist() == [["1", ""]]
    with pytest.raises(ManifestError, match=r"a\.csv: expected the columns one, found one, two"):
        read_table(tmp_path / "a.csv", ("one",))
