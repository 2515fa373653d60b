from __future__ import annotations

import gc
import warnings
from pathlib import Path

import numpy as np
import pytest

from lessismore_transforms.errors import ManifestError
from lessismore_transforms.reduced.table_files import (
    format_number,
    open_array,
    parse_slice_id,
    read_record,
    read_table,
    slice_id,
    write_table,
)


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


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"a\.csv is no table \(No columns to parse from file\): undo the edit or reduce again"),
        (b'one\n"1', r"a\.csv is no table \(Error tokenizing data.*\): undo the edit or reduce again"),
        (b"\xff\xfe\n1", r"expected text in .*a\.csv, found bytes that are none \(invalid start byte\): fix the file"),
        (None, r"cannot read .*a\.csv: Is a directory: fix the path or its permissions"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_sentence(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    if content is None:
        (tmp_path / "a.csv").mkdir()
    else:
        (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ManifestError, match=sentence):
        read_table(tmp_path / "a.csv", ("one",))


def test_a_record_is_an_object(tmp_path: Path) -> None:
    for text, sentence in (
        ("x", "is no JSON"),
        ("[1]", "expected an object, found list"),
        ("\u00e4", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ('{"a": ' + "9" * 5000 + "}", "is no JSON"),
    ):
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        with pytest.raises(ManifestError, match=sentence):
            read_record(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"one": 1}')
    assert read_record(tmp_path / "a.json") == {"one": 1}


def test_a_damaged_array_is_one_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(3))
    assert open_array(tmp_path / "a.npy").tolist() == [0, 1, 2]
    (tmp_path / "a.npy").write_bytes(b"bad")
    with pytest.raises(ManifestError, match=r"a\.npy was damaged, it is no array: delete it"):
        open_array(tmp_path / "a.npy", "delete it")
    with pytest.raises(ManifestError, match=r"cannot read .*b\.npy: No such file or directory"):
        open_array(tmp_path / "b.npy")


@pytest.mark.parametrize("size", [-1, 100])
def test_an_archive_in_place_of_an_array_is_refused_and_closed(tmp_path: Path, size: int) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        np.savez(file, np.arange(3))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:size])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(ManifestError, match=r"a\.npy was damaged, it is no array: delete it"):
            open_array(tmp_path / "a.npy", "delete it")
        gc.collect()
    assert not [str(each.message) for each in said if issubclass(each.category, ResourceWarning)]


def test_control_characters_in_a_cell_are_written_so_that_the_table_reads_back(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", ("one", "two"), [("1.2\r3", "a\nb\x00"), ("\u00e4", "x,y")])
    assert read_table(tmp_path / "a.csv", ("one", "two")).values.tolist() == [
        ["1.2\\r3", "a\\nb\\x00"],
        ["\u00e4", "x,y"],
    ]
