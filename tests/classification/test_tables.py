"""Tables as text, CSV, Markdown and HTML, by the command too, and its mistakes in one sentence."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import noisy, rows_of, write_evaluation

from lessismore_transforms.classification.comparison import make_table
from lessismore_transforms.classification.tables import as_text, write_table
from lessismore_transforms.cli.main import main


class _Cells(HTMLParser):
    """The text of the cells of all tables, line by line."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[list[str]] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.lines.append([])
        self.inside = tag in ("td", "th")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.lines[-1].append(data)


def test_files_and_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_evaluation(tmp_path / "scratch", noisy(0.5, 3, seed=0))
    two = write_evaluation(tmp_path / "a|<b>", noisy(2, 3, seed=1))
    arguments = ["table", str(one), str(two), "--paper", "--samples", "99", "--metrics", "auc", "accuracy"]
    arguments += ["--baseline", str(one)]
    outputs = {}
    for suffix in ("csv", "md", "html"):
        outputs[suffix] = tmp_path / f"table.{suffix}"
        assert main([*arguments, "--output", str(outputs[suffix])]) == 0
        screen = capsys.readouterr().out
    assert screen.endswith(f"\ntable: {tmp_path / 'table.html'}\n")
    table = make_table([one, two], baseline=one, metrics=["auc", "accuracy"], paper=True, samples=99)
    assert screen.startswith(as_text(table))

    with outputs["csv"].open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    rows = list(rows_of(table).values())
    assert [(line["evaluation"], line["metric"]) for line in lines] == [(row.evaluation, row.metric) for row in rows]
    assert [float(line["mean"]) for line in lines] == [row.mean for row in rows]  # all digits
    assert [line["p"] for line in lines[:2]] == ["", ""]
    assert [float(line["p_holm"]) for line in lines[2:]] == [row.p_holm for row in rows[2:]]
    assert [line["paper_mean"] for line in lines] == ["0.737", "0.673"] * 2
    assert [line["baseline"] for line in lines] == ["", "", "scratch", "scratch"]
    assert {line["unit"] for line in lines} == {"image"}
    assert {line["units"] for line in lines} == {"40"}

    parser = _Cells()
    parser.feed(outputs["html"].read_text(encoding="utf-8"))
    first = rows[2]
    assert parser.lines[2][:4] == ["a|<b>", "from scratch", "3 runs", f"{first.mean:.3f} ± {first.std:.3f}"]
    markdown = outputs["md"].read_text(encoding="utf-8").splitlines()
    assert markdown[0] == "**COVID-19: 40 test images (patients and sources not known)**"
    assert markdown[2] == "| evaluation | pre-training | mean of | AUC | paper | accuracy | paper |"
    assert markdown[3] == "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    assert markdown[5].startswith("| a&#124;<b> | from scratch | 3 runs | ")
    assert all(line.count("|") == 8 for line in markdown[2:6])
    assert markdown[-1].startswith("- paper: Wolf et al. 2024")


def test_a_comparison_that_is_too_small_for_its_difference_is_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two folders of evaluations, the second with a gain that 40 pictures show, or hardly differ."""
    for name, gain in (("base", 0.5), ("sub/near", 0.6), ("sub/far", 4.0)):
        write_evaluation(tmp_path / "all" / name, noisy(gain, 1, seed=0))
    output = tmp_path / "table.csv"
    arguments = ["table", str(tmp_path / "all"), "--baseline", str(tmp_path / "all" / "base"), "--samples", "99"]
    assert main([*arguments, "--metrics", "auc", "--output", str(output)]) == 0
    screen = capsys.readouterr().out
    with output.open(encoding="utf-8", newline="") as file:
        lines = {line["evaluation"]: line for line in csv.DictReader(file)}
    assert list(lines) == ["base", "far", "near"]  # folders of evaluations stand for these
    assert {name: line["too_small"] for name, line in lines.items()} == {
        "base": "False",
        "far": "False",
        "near": "True",
    }
    for name, mark in (("near", " †"), ("far", "")):
        detectable, difference = (float(lines[name][column]) for column in ("detectable", "difference"))
        assert (detectable > abs(difference)) == bool(mark)
        (line,) = (line for line in screen.splitlines() if line.startswith(f"{name} ") and "base" in line)
        assert line.endswith(f"  {detectable:.3f}{mark}")
        assert "  1 run  " in line
        assert "  40 images  " in line
    assert "†: it is larger than the difference found" in " ".join(screen.split())


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_evaluation(tmp_path / "a", noisy(1, 1, seed=0))
    swapped = write_evaluation(tmp_path / "b", noisy(1, 1, seed=0), classes=["NonCOVID", "COVID"])
    positive = write_evaluation(tmp_path / "c", noisy(1, 1, seed=0), positive=0)
    for arguments, words in (
        ([one, one], f"expected each evaluation once, found {one} twice; drop one of them"),
        ([one, swapped], "the same classes in all evaluations of COVID-19, found ('COVID', 'NonCOVID') in a and"),
        ([one, positive], "the same positive in all evaluations of COVID-19, found 1 in a and 0 in c"),
        ([one, "--metrics", "AUC"], "expected metrics of auc, accuracy, f1_macro, f1_micro, f1, found AUC"),
        ([one, "--samples", "0"], "1000 is usual"),
        ([one, "--output", "table.xlsx"], "expected a file that ends in .csv, .md, .html, found table.xlsx"),
        ([one, "--output", tmp_path / "no" / "t.md"], f"expected a folder for t.md, found none at {tmp_path / 'no'}"),
        ([tmp_path / "x"], f"found nothing at {tmp_path / 'x'}; fix the path"),
    ):
        assert main(["table", *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: expected ")
        assert err.count("\n") == 1
        assert words in err
    with pytest.raises(ValueError, match="expected the folders of evaluations, found none"):
        make_table([])
    with pytest.raises(ValueError, match="ends in"):
        write_table(make_table([one], samples=2), tmp_path / "table.txt")
