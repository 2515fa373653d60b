from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from report_cases import (
    Case,
    Page,
    count_exemplars,
    count_pairs,
    make_out,
    plain,
    report,
    summaries_of,
    walk_hashes,
)

from lessismore_transforms.errors import ManifestError
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report import write_report
from lessismore_transforms.report.summary import (
    robust_z,
)
from lessismore_transforms.volumes import volume_id


@pytest.mark.parametrize("method", ["hash", "ssim", "every_n", "all"])
def test_volumes_without_any_candidate(tmp_path: Path, method: str) -> None:
    target = Target.of(method=method)
    case = Case([5, 6], unreadable=dict.fromkeys((0, 1), "no body: 0.00 % of the slice"), thumbnails=True)
    page = report(make_out(tmp_path, [case, case], target, measure=target.measure))
    assert page.numbers["slices kept"] == "0"
    assert plain(page.tables["kept"])[2][1:3] == ["0", "0.0 %"]
    assert "4 slices without a body were left out." in page.text


def test_histograms_tell_how_many_were_removed_and_how_far(tmp_path: Path) -> None:
    page = report(make_out(tmp_path, [Case([0, 0b1, 0b11, 0xFF00]), Case([5, 5])]))
    assert "(4 removed, median 1.5 bits)" not in page.text
    assert "(3 removed, median 1 bit)" in page.text  # 1, 2 and 0 bits
    assert "chosen: 6 bits" in page.drawings[1]


def test_outliers_are_far_from_volumes_of_the_same_spacing(tmp_path: Path) -> None:
    same, different = [0] * 10, [(1 << (6 * index)) * 63 for index in range(10)]  # kept: 1 of 10, 10 of 10
    half = different[:5] * 2
    cases = [Case(same + different[: 1 + number % 2], spacing=1) for number in range(10)]
    cases += [Case(half + different[: 1 + number % 2], spacing=5) for number in range(10)]
    cases += [Case(different, spacing=1), Case([7], spacing=1)]
    out = make_out(tmp_path, cases, Target.of(threshold=6))
    rows = report(out).tables["outlying"][1:]
    assert [row[:5] for row in rows] == [[volume_id("20"), "10", "1 mm", "10", "100.0\u00a0%"]]
    z = robust_z(summaries_of(out))
    assert rows[0][5] == f"{z[20]:+.1f}"
    assert z[21] == 0  # one slice says nothing


def test_few_volumes_have_no_outliers(tmp_path: Path) -> None:
    page = report(make_out(tmp_path, [Case([0, 1])] * 3))
    assert "Outliers are sought among 8 volumes or more" in page.text


def test_notes_are_listed_once_each_and_escaped(tmp_path: Path) -> None:
    tilt, markup = "gantry tilt of 12.0 degrees & more", "<script>alert(1)<b>"
    page = report(make_out(tmp_path, [Case([0, 1], notes=(tilt, markup)), Case([3, 3], notes=(tilt,)), Case([9])]))
    assert page.tables["noted"][1:] == [
        [tilt, "2", f"{volume_id('0')}, {volume_id('1')}"],
        [markup, "1", volume_id("0")],
        ["one slice only", "1", volume_id("2")],
    ]
    assert [attributes for tag, attributes in page.elements if tag == "script"] == [
        {"type": "application/json", "id": "choices"},
        {},
    ]  # the page's own


def test_failures_are_counted_by_reason_without_paths(tmp_path: Path) -> None:
    page = report(
        make_out(
            tmp_path,
            [Case([0, 1, 2], unreadable={1: "Doe^John 1970/CT 3/IM1.dcm: truncated: 3 of 4 bytes"})],
            failures=[
                {"path": "Roe 7/a.nii.gz", "reason": "Roe 7/a.nii.gz: the file is truncated: copy it again"},
                {"path": "Roe 7/b.nii.gz", "reason": "Roe 7/b.nii.gz: the file is truncated: copy it again"},
                {"path": "c.nii", "reason": "c.nii: 4-D image of shape (1, 2, 3, 4): <odd>"},
            ],
            skipped=[{"path": f"x{i}.txt", "reason": "not an image in a known format"} for i in range(1234)],
        )
    )
    assert page.tables["failed"][1:] == [
        ["the file is truncated: copy it again", "2"],
        ["4-D image of shape (1, 2, 3, 4): <odd>", "1"],
    ]
    assert page.tables["unreadable"][1:] == [["truncated: 3 of 4 bytes", "1"]]
    assert page.tables["skipped"][1:] == [["not an image in a known format", "1,234"]]
    assert page.numbers["volumes failed"] == "3"


def test_the_page_holds_no_path_no_patient_and_no_series(tmp_path: Path) -> None:
    path = "Doe^John 1970/CT 3"
    out = make_out(
        tmp_path,
        [
            Case(
                walk_hashes(20), unreadable={3: f"{path}/IM3.dcm: bad"}, notes=(f"see {path}/IM4.dcm",), thumbnails=True
            )
        ],
        failures=[{"path": "Roe Jane/x.nii", "reason": "Roe Jane/x.nii: [Errno 5] read error: '/data/Roe Jane/x.nii'"}],
        skipped=[{"path": f"{path}/copy.dcm", "reason": f"a copy of {path}/IM4.dcm (same SOPInstanceUID)"}],
    )
    page = report(out)
    for text in (page.bare, *page.drawings):
        for private in (
            "Doe",
            "Roe",
            "1970",
            "IM4",
            ".dcm",
            ".nii",
            "copy.dcm",
            "patient-0815",
            "1.2.840",
            str(tmp_path),
        ):
            assert private not in text


def test_the_page_needs_nothing_from_outside_and_describes_its_pictures(tmp_path: Path) -> None:
    page = report(make_out(tmp_path, [Case(walk_hashes(30), thumbnails=True)]))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"link", "iframe", "object", "embed", "base"}
    assert "script-src 'sha256-" in page.source
    assert "default-src 'none'; img-src data:;" in page.source
    for tag, attributes in page.elements:
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
        if tag == "img" or attributes.get("role") == "img":
            assert attributes.get("alt") or attributes.get("aria-label")
    assert set(re.findall(r"url\((.{5})", page.source)) == {"data:"}
    assert "@import" not in page.source
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    cases = [Case(walk_hashes(40, seed), thumbnails=seed < 2) for seed in range(9)]
    first = write_report(make_out(tmp_path / "a", cases)).read_bytes()
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": False}):
        again = write_report(make_out(tmp_path / "b", cases)).read_bytes()
    assert first == again


def test_a_run_in_which_every_volume_failed_lists_the_failures(tmp_path: Path) -> None:
    page = report(make_out(tmp_path, [], failures=[{"path": "a.nii", "reason": "a.nii: the file is truncated"}]))
    assert page.numbers == {
        "volumes": "0", "slices": "0", "slices kept": "0", "of the slices kept": "–", "volume failed": "1",
    }  # fmt: skip
    assert page.tables["failed"][1:] == [["the file is truncated", "1"]]
    assert page.drawings == []


@pytest.mark.parametrize("thumbnails", [False, True])
def test_one_volume_of_one_slice(tmp_path: Path, thumbnails: bool) -> None:
    page = report(make_out(tmp_path, [Case([7], thumbnails=thumbnails)]))
    assert page.numbers == {"volume": "1", "slice": "1", "slice kept": "1", "of the slices kept": "100.0\u00a0%"}
    assert len(page.drawings) == 3
    assert ("The output folder holds no thumbnails." in page.text) is not thumbnails


def test_another_selection_is_shown_by_its_name(tmp_path: Path) -> None:
    out = make_out(tmp_path, [Case(walk_hashes(50))])
    Manifest.read(out).select(Target.of(threshold=3)).write(out, "hash3")
    page = Page(write_report(out, "hash3"))
    assert page.marked[0][0] == "3 bits (chosen)"
    assert "hash3: HASH at 3 bits" in page.text


def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path: Path) -> None:
    out = make_out(tmp_path / "a", [Case([0, 1, 2], thumbnails=True)])
    other = make_out(tmp_path / "b", [Case([0, 1])])
    with pytest.raises(ManifestError, match="no selection 'mine'"):
        write_report(out, "mine")
    with pytest.raises(ManifestError, match=r"manifest\.json is missing"):
        write_report(tmp_path)
    for name in ("default.csv", "default.json"):
        (other / "selections" / name).write_bytes((out / "selections" / name).read_bytes())
    with pytest.raises(ManifestError, match=r"the selection default in .* names other slices than manifest\.csv"):
        write_report(other)
    np.save(out / "store" / "thumbnails" / f"{volume_id('0')}.npy", np.zeros((2, 96, 96), dtype=np.uint8))
    with pytest.raises(ManifestError, match=r"expected uint8 \(3, rows, columns\), found uint8 \(2, 96, 96\)"):
        write_report(out)


def test_real_volumes(real_report: Path) -> None:
    manifest = Manifest.read(real_report)
    volumes = [[int(value) for value in rows["hash"]] for _, rows in manifest.by_volume()]
    page = report(real_report)
    for row, bits in zip(page.tables["kept"][2:], (3, 6, 12), strict=True):
        assert row[1] == str(sum(count_exemplars(hashes, bits) for hashes in volumes))
        assert row[3] == str(sum(count_pairs(hashes, bits) for hashes in volumes))
    for path in [record["path"] for record in manifest.volumes]:
        assert not any(part in page.bare for part in path.split("/"))
    assert len(page.tiles("kept")) == 2 * int(page.numbers["slices kept"])
