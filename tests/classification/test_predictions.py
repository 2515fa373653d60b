from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lessismore_transforms.classification.predictions import Predictions

NAMES = ['a, "b".png', "50%20%.png", "Lunge_ä肺.png", " spaced\nline ", "'#=1+1"]
HEADER = "image_id,patient,source,split,label,p_0,p_1"


def predictions(classes: int = 3) -> Predictions:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(classes, 0.1), len(NAMES)).astype(np.float32).astype(np.float64)
    labels = rng.integers(0, classes, len(NAMES))
    return Predictions(
        NAMES,
        ["", "p1", "", "p,2", "p1"],
        ["val", "test", "val", "test", "test"],
        labels,
        probabilities,
        ["a paper", "", "b", "", "b"],
    )


def test_what_is_written_is_read_and_float32_survives(tmp_path: Path):
    written = predictions()
    written.write(tmp_path / "predictions.csv")
    read = Predictions.read(tmp_path / "predictions.csv")
    assert (read.image_ids, read.patients, read.splits) == (NAMES, written.patients, written.splits)
    assert read.sources == written.sources
    np.testing.assert_array_equal(read.labels, written.labels)
    np.testing.assert_array_equal(read.probabilities.astype(np.float32), written.probabilities.astype(np.float32))
    read.write(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "predictions.csv").read_bytes()


def test_the_file_is_the_documented_table(tmp_path: Path):
    third = np.float64(np.float32(1 / 3))
    Predictions(["x"], [""], ["test"], np.array([1]), np.array([[third, 1 - third]])).write(tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == f"{HEADER}\nx,,,test,1,0.333333343,0.666666657\n"


def test_a_name_that_is_not_utf8_and_a_table_saved_by_excel(tmp_path: Path):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    Predictions([name], [""], ["test"], np.array([0]), np.array([[0.5, 0.5]])).write(tmp_path / "p.csv")
    (tmp_path / "p.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "p.csv").read_bytes().replace(b"\n", b"\r\n"))
    assert Predictions.read(tmp_path / "p.csv").image_ids == [name]


def test_one_split_in_the_same_order():
    part = predictions().of("test")
    assert part.image_ids == [NAMES[1], NAMES[3], NAMES[4]]
    assert part.patients == ["p1", "p,2", "p1"]
    assert part.sources == ["", "", "b"]
    np.testing.assert_array_equal(part.probabilities, predictions().probabilities[[1, 3, 4]])
    with pytest.raises(ValueError, match=r"the split 'train', found test"):
        part.of("train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected the columns image_id, patient, source, split, label, p_0, p_1, ..., found none"),
        ("image_id,patient,split,label,p_0,p_1\na,,test,0,1,0\n", "line 1: .*found image_id, patient, split, label"),
        ("image_id,patient,source,split,label,p_0\na,,,test,0,1\n", "line 1: expected the columns"),
        (f"{HEADER}\n", "line 2: expected a row per picture, found none"),
        (f"{HEADER}\na,,,test,0,1,0\nb,,,test,0,1\n", "line 3: expected 7 values, found 6"),
        (
            f'{HEADER}\n"a\nb",,,val,0,1,0\nc,,,val,x,1,0\n',
            "line 4: expected a label and probabilities, found x, 1, 0",
        ),
        (f"{HEADER}\na,,,test,0,\0,\u2028\n", r"line 2: expected a label and probabilities, found 0, \\x00, \\u2028"),
        (
            f"{HEADER}\na,,,test,{10**20},1,0\n",
            "line 2: expected a label and probabilities, found 1000000000",
        ),
        (f"{HEADER}\na,,,test,{'9' * 5000},1,0\n", "line 2: expected a label and probabilities, found 9{500,}…"),
        (
            f"{HEADER}\n{'a' * 2**18},,,test,0,1,0\n",
            "line 2: expected a table, found none .field larger",
        ),
        (f"{HEADER}\na,,,test,0,1,0\nb,,,test,2,1,0\n", "line 3: expected a label from 0 to 1, found 2"),
        (f"{HEADER}\na,,,test,0,0.7,0.29989\n", "line 2: expected probabilities that sum to 1, found 0.7, 0.29989"),
        (f"{HEADER}\na,,,test,0,1.5,-0.5\n", "line 2: expected probabilities that sum to 1"),
        (f"{HEADER}\na,,,test,0,nan,1\n", "line 2: expected probabilities that sum to 1, found nan, 1"),
        (f"{HEADER}\na,,,val,0,1,0\nb,,,val,0,1,0\na,,,test,0,1,0\n", "line 4: expected each image_id once, found 'a'"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, text: str, message: str):
    path = tmp_path / "predictions.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"predictions\.csv, {message}.*: undo the edit or evaluate again$"):
        Predictions.read(path)


def test_a_missing_file_and_parts_that_do_not_fit(tmp_path: Path):
    with pytest.raises(ValueError, match=r"predictions\.csv is missing"):
        Predictions.read(tmp_path / "predictions.csv")
    with pytest.raises(ValueError, match=r"found \[2, 1, 2, 1, 1\] and \(1, 2\)"):
        Predictions(["a", "b"], [""], ["test"], np.array([0]), np.array([[1.0, 0.0]]))
    with pytest.raises(ValueError, match=r"prediction 0 \('a'\): expected probabilities that sum to 1"):
        Predictions(["a"], [""], ["test"], np.array([0]), np.array([[np.nan, np.nan]]))
