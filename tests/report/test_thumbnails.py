from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_cases import (
    Case,
    bits_apart,
    make_out,
    plain,
    report,
    summaries_of,
    walk_hashes,
)

from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduced.table_files import slice_id
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report.summary import (
    groups,
    marginal_pairs,
)
from lessismore_transforms.volumes import volume_id


def test_tiles_show_the_slices_and_captions_name_what_stands_for_them(tmp_path: Path) -> None:
    hashes = [0, 0b1, 0b111, 0xFFFF00, 0xFFFF01, 0, 0x3F]  # 0 stands for 1, 2, 5, 6 and 3 for 4; 5 cannot be read
    page = report(
        make_out(tmp_path, [Case(hashes, unreadable={5: "Doe^John 1970/CT 3/IM5.dcm: broken"}, thumbnails=True)])
    )
    assert page.numbers["slices, 1 unreadable"] == "7"
    assert page.tiles("kept") == ["slice 0", "slice 3", "slice 0", "slice 3"]  # the groups, then all slices
    assert page.tiles("removed") == ["slice 6", "slice 4", "slice 1", "slice 2", "slice 4", "slice 6"]
    assert page.tiles("unreadable") == ["slice 5"]
    for words in ("0 stands for 3: 1–2, 6 6 → 0, 6 bits", "3 stands for 1: 4 4 → 3, 1 bit", "1 → 0 2 → 0 3 4 → 3"):
        assert words in page.text
    assert "5 unreadable" in page.text

    sheet = re.search(r"image/webp;base64,([^)]*)\);background-size:(\d+)% (\d+)%", page.source)
    assert sheet is not None
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet[1]))).convert("L"), dtype=float)
    assert picture.shape == (96 * int(sheet[3]) // 100, 96 * int(sheet[2]) // 100)
    for _, attributes in page.elements:
        if attributes.get("class", "").startswith("tile"):
            index = int(attributes["aria-label"].split()[1].strip(","))
            across, down = (float(part) / 100 for part in re.findall(r"([\d.]+)%", attributes["style"]))
            left, top = round(across * (picture.shape[1] - 96)), round(down * (picture.shape[0] - 96))
            assert abs(picture[top : top + 96, left : left + 96].mean() - 35 * index) < 2


def test_by_the_pair_rule_a_slice_whose_remover_fell_is_shown_with_the_one_that_stayed(tmp_path: Path) -> None:
    hashes = [0, 0b111, 0b11111, 0xFFFF0000]  # 2 falls to 1 at 2 bits, 1 to 0 at 3 bits
    out = make_out(tmp_path, [Case(hashes, thumbnails=True)], Target.of(rule="pairs", threshold=3))
    (volume,) = summaries_of(out)
    assert volume.kept_by.tolist() == [-1, 0, 1, -1]
    found = groups(volume, 40, Target.of(rule="pairs", threshold=3))
    assert [(group.kept, group.members, group.farthest, group.distance) for group in found] == [
        (0, [1, 2], 2, 5),
        (3, [], -1, 0),
    ]
    page = report(out)
    assert "0 stands for 2: 1–2 2 → 0, 5 bits 3 alone" in page.text
    assert "0 1 → 0 2 → 1 3" in page.text  # all slices: by the remover


def test_examples_are_a_kept_slice_and_one_removed_exactly_at_the_threshold(tmp_path: Path) -> None:
    hashes = walk_hashes(80)
    (volume,) = summaries_of(make_out(tmp_path, [Case(hashes, unreadable={7: "x"})]))
    pairs = marginal_pairs(volume, (1, 3, 6, 12))
    assert {3, 6, 12} <= pairs.keys()
    for bits, (kept, removed) in pairs.items():
        exemplars: list[int] = []
        for index in range(80):
            if index != 7 and all(bits_apart(hashes[index], hashes[other]) > bits for other in exemplars):
                exemplars.append(index)
        assert kept in exemplars
        assert next(i for i in exemplars if bits_apart(hashes[i], hashes[removed]) <= bits) == kept
        assert bits_apart(hashes[kept], hashes[removed]) == bits


def test_long_volumes_stay_legible(tmp_path: Path) -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, 600).tolist()
    out = make_out(tmp_path, [Case(hashes)], Target.of(threshold=0))
    np.save(out / "store" / "thumbnails" / f"{volume_id('0')}.npy", np.zeros((600, 96, 96), dtype=np.uint8))
    page = report(out)
    assert len(page.tiles("kept")) == 40 + 400
    assert "600 kept (100.0 %); 40 of them are shown" in page.text.replace("\u00a0", " ")
    assert "400 of the slices, evenly spread, in order" in page.text
    assert {"slice 0", "slice 599"} <= set(page.tiles("kept"))


def test_a_slice_that_fell_to_another_volume_says_so(tmp_path: Path) -> None:
    out = make_out(tmp_path, [Case([0, 1], thumbnails=True), Case([0, 2**40 - 1], thumbnails=True)])
    selection = Selection.read(out)
    selection.slices.loc[2, ["kept", "kept_by", "distance"]] = [False, slice_id(volume_id("0"), 0), 0.0]
    Selection(selection.slices, Target.of(scope="all", threshold=6)).write(out, "default")
    page = report(out)
    assert "0 → another volume 1" in page.text
    assert "does across volumes" in page.text
    assert page.marked == []
    assert "--threshold 12 --scope all --name hash12_all" in page.text
    assert "(2 removed, median 0.5 bits)" in page.text


@pytest.mark.parametrize("measure", ["hash", "ssim"])
def test_slices_without_a_body_are_told_from_unreadable_ones(tmp_path: Path, measure: str) -> None:
    out = make_out(
        tmp_path,
        [
            Case([0, 3, 2**30], unreadable={0: "no body: 0.02 % of the slice", 2: "truncated"}, thumbnails=True),
            Case([5, 6], unreadable=dict.fromkeys((0, 1), "no body: 0.00 % of the slice"), thumbnails=True),
        ],
        Target.of(method=measure),
        measure=measure,
    )
    page = report(out)
    assert page.numbers["slices, 1 unreadable, 3 without body"] == "5"
    assert page.tables["unreadable"][1:] == [["truncated", "1"]]
    assert "3 slices without a body were left out." in page.text
    assert page.tiles("bodiless") == ["slice 0", "slice 0", "slice 1"]
    assert "0 no body 1 2 unreadable" in page.text
    assert plain(page.tables["kept"])[2][1:3] == ["1", "20.0 %"]
