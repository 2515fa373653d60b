from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from made_outputs import NAMES, keep, make_out, make_pair

from lessismore_transforms.errors import ManifestError
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.overlap import compare
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report.overlap_page import write_comparison


def test_table_and_page_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "page"
    assert write_comparison(compare(make_pair(tmp_path / "out")), folder) == folder / "compare.html"
    assert sorted(path.name for path in folder.iterdir()) == ["compare.csv", "compare.html"]


def test_an_empty_selection_is_shown(tmp_path: Path) -> None:
    out = make_out(tmp_path / "out", [[0] * 3])
    write_comparison(compare([keep(out, "none", []), keep(out, "some", [1])]), tmp_path)
    assert (tmp_path / "compare.csv").read_text(encoding="utf-8").splitlines()[1] == "none,some,0,1,0,,,,,,0"


def test_the_page_stands_alone_and_names_nobody(tmp_path: Path) -> None:
    pair, folder = make_pair(tmp_path / "out"), tmp_path / "new" / "page"
    page = write_comparison(compare(pair), folder).read_text(encoding="utf-8")
    again = write_comparison(compare(pair), folder / "again").read_text(encoding="utf-8")
    assert page == again
    assert set(re.findall(r'(?:src|href)="(.{0,22})', page)) == {"data:image/webp;base64", "https://doi.org/10.101"}
    for private in ("Doe", "0815", "1.2.840", str(folder.parent)):
        assert private not in page
    text = unescape(re.sub(r"<[^>]+>", " ", page)).replace("\u00a0", " ")
    assert text.count("2 slices in both") == 2
    assert "SSIM and MI most" in text
    assert f"Volume {NAMES[1]}" in re.sub(r"\s+", " ", text)  # the longer one
    shown = [
        (kind, int(index)) for kind, index in re.findall(r'class="tile( kept)?" src="[^"]*" alt="slice (\d+)"', page)
    ]
    assert shown == [("", 0), (" kept", 1), (" kept", 1), ("", 2)]


def test_bold_is_what_chance_does_not_explain(tmp_path: Path) -> None:
    out = make_out(tmp_path / "out", [list(range(200))])
    same, alike, other = keep(out, "a", [*range(20)]), keep(out, "b", [*range(5, 25)]), keep(out, "c", [*range(18, 38)])
    page = write_comparison(compare([same, alike, other]), tmp_path).read_text(encoding="utf-8")
    cells = re.findall(r'<td class="([^"]*)" style="[^"]*"><b>([\d.]+)', page)
    kinds = {share: kind for kind, share in cells if "itself" not in kind}
    assert kinds == {"75.0": "", "10.0": "chance", "35.0": ""}


def test_without_thumbnails_the_page_says_so(tmp_path: Path) -> None:
    out = make_out(tmp_path / "out", [[0, 0]])
    pair = [keep(out, "one", [0]), keep(out, "other", [1])]
    assert "hold no thumbnails" in write_comparison(compare(pair), tmp_path).read_text(encoding="utf-8")
    (out / "store" / "thumbnails").mkdir(parents=True)
    np.save(out / "store" / "thumbnails" / f"{NAMES[0]}.npy", np.zeros((1, 96, 96), np.uint8))
    with pytest.raises(ManifestError, match=r"expected uint8 \(2, rows, columns\), found uint8 \(1, 96, 96\)"):
        write_comparison(compare(pair), tmp_path)


def test_pages_of_real_runs_show_slices(small_data: Path, tmp_path: Path) -> None:
    for bits in (3, 12):
        reduce_dataset(small_data, tmp_path / f"hash{bits}", Settings(target=Target.of(threshold=bits)), workers=0)
    comparison = compare([(tmp_path / "hash3", "default"), (tmp_path / "hash12", "default")])
    assert write_comparison(comparison, tmp_path / "page").read_text(encoding="utf-8").count("<figure>") > 4
