"""Tables that users wrote: what is read of them, and every mistake in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduced.label_file import check_rows, find_label_column, first_of, named_column, read_rows


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "t.csv"


def test_a_table_as_spreadsheets_and_pandas_write_it(table: Path) -> None:
    """A mark of UTF-8, other capital letters, blanks, quotes, row numbers, and a comma behind each row."""
    table.write_bytes(b'\xef\xbb\xbf,Path, Finding ,\r\n0, a/1.png,"x, y",\r\n\r\n1,b.png, "\xc3\xa9" ,\r\n')
    rows, columns = read_rows(table)
    assert columns == ["path", "finding"]
    assert rows == [{"path": "a/1.png", "finding": "x, y"}, {"path": "b.png", "finding": "\u00e9"}]
    assert [row.number for row in rows] == [1, 2]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"path,label\n\xff,1\n", "t.csv is no CSV file in UTF-8: name another, or save the table with commas, in UT"),
        (b"path,label\n", "t.csv has no rows: expected a header and a row per picture"),
        (b"", "t.csv has no rows: expected a header and a row per picture"),
        (b"path,label\na,1\nb\n", "t.csv, row 2: expected 2 values, found 1: write a comma between two values"),
        (b"path,label\na,1,2\n", "t.csv, row 1: expected 2 values, found 3"),
        (b"path,Label,label\na,1,2\n", "t.csv: expected each column once, found path, label, label: rename the others"),
        (b'path,label\na,1\n  \nb,"2\nc,3\nd,4\n', "row 2: expected a quotation mark behind the value, found none"),
        (b'path,label\na,1\nb,"2', "t.csv, row 2: expected a quotation mark behind the value, found none: add it"),
        (b'path,"label\na,1\n', "t.csv, header: expected a quotation mark behind the value, found none"),
        (None, "cannot read .*t.csv: No such file"),
    ],
)
def test_what_cannot_be_read(table: Path, text: bytes | None, sentence: str) -> None:
    if text is not None:
        table.write_bytes(text)
    with pytest.raises(UserError, match=sentence):
        read_rows(table)


def test_lines_of_blanks_are_left_out_and_a_value_may_have_two_lines(table: Path) -> None:
    """Also in the last line, without its end; a row of commas is one whose values are missing."""
    table.write_bytes(b' \t\npath,note\n\t \na,"1\n2"\n,\n   \nend,end')
    rows, columns = read_rows(table)
    assert columns == ["path", "note"]
    assert rows == [{"path": "a", "note": "1\n2"}, {"path": "", "note": ""}, {"path": "end", "note": "end"}]
    assert [row.number for row in rows] == [1, 2, 3]


def test_a_column_of_paths_alone(table: Path) -> None:
    table.write_bytes(b"path\na\n\nend")
    assert read_rows(table) == ([{"path": "a"}, {"path": "end"}], ["path"])


def test_columns(table: Path) -> None:
    assert first_of(("a", "b", "c"), ["c", "b"]) == "b"
    assert first_of("xy", ["c", "b"]) == ""
    assert named_column(table, ["path", "organ"], " Organ", "label") == "organ"
    assert named_column(table, ["path", "organ"], None, "label") == ""
    with pytest.raises(UserError, match=r"a column bone, found path, organ: check the name of the group column"):
        named_column(table, ["path", "organ"], "bone", "group")


@pytest.mark.parametrize(
    ("columns", "named", "groups", "expected"),
    [
        (["path", "label", "age"], None, "", "label"),
        (["path", "label", "age"], "Age", "", "age"),
        (["slice_id", "index", "volume", "patient_id", "source", "split", "organ"], None, "", "organ"),
        (["id", "organ", "slide"], None, "slide", "organ"),
    ],
)
def test_the_column_of_labels(table: Path, columns: list[str], named: str | None, groups: str, expected: str) -> None:
    assert find_label_column(table, columns, named, setting="labels_are", groups=groups) == expected


@pytest.mark.parametrize(("columns", "found"), [(["id", "organ", "age"], "organ, age"), (["id", "patient"], "none")])
def test_a_column_of_labels_that_is_not_known(table: Path, columns: list[str], found: str) -> None:
    with pytest.raises(UserError, match=f"one column of labels, found {found}: name it with --labels_are"):
        find_label_column(table, columns, None, setting="labels_are")


def test_rows_are_named_by_their_place_in_the_file(table: Path) -> None:
    table.write_text("path,label\na,1\n,2\nb,\na,3\nc,4\n")
    rows, _ = read_rows(table)
    check_rows(table, [rows[place] for place in (0, 4)], "path", "label")
    check_rows(table, [rows[place] for place in (0, 2)], "path")
    for places, sentence in (
        ((0, 1), "row 2: path is empty: fill it in or take the row away"),
        ((2, 3), "row 3: label is empty: fill it in or take the row away"),
        ((0, 4, 3), "row 4: a is in row 1 already: take one of them away"),
    ):
        with pytest.raises(UserError, match=sentence):
            check_rows(table, [rows[place] for place in places], "path", "label")
