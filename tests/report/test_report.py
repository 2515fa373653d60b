from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from lessismore_transforms.errors import ManifestError
from lessismore_transforms.reduced.manifest import Manifest, write_manifest
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduced.table_files import format_number, slice_id
from lessismore_transforms.reduction.hashing import format_hash
from lessismore_transforms.reduction.measures import rank_slices
from lessismore_transforms.reduction.selection import Ranking, target_count
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report import write_report
from lessismore_transforms.report.anonymise import anonymiser
from lessismore_transforms.report.html import ranges
from lessismore_transforms.report.summary import (
    VolumeSummary,
    exemplar_counts,
    groups,
    levels,
    marginal_pairs,
    nearest_pairs,
    pair_counts,
    robust_z,
    summarise,
)
from lessismore_transforms.volumes import volume_id
from lessismore_transforms.wording import percent

VOID = {"meta", "img", "br", "rect"}


# An output folder without images


@dataclass
class Case:
    """A volume of a made-up output folder."""

    hashes: list[int]
    unreadable: dict[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    spacing: float = 1.0
    thumbnails: bool = False
    first_number: int | None = None
    ranked_to: int = 0
    patient: str = "patient-0815"
    series: str = "1.2.840.113619.2.55"
    path: str = "Doe^John 1970/CT 3"


def similarities(hashes: list[int]) -> NDArray[np.float64]:
    """A stand-in for SSIM: the share of the bits that are the same."""
    return np.array([[1 - bits_apart(one, other) / 64 for other in hashes] for one in hashes]).reshape(len(hashes), -1)


def rank_case(case: Case, measure: str, readable: NDArray[np.bool_]) -> Ranking:
    matrix = None if measure == "hash" else (similarities(case.hashes) + (measure == "mi"))[np.ix_(readable, readable)]
    ranking = rank_slices(measure, np.array(case.hashes, dtype=np.uint64), readable, matrix=matrix)
    left = ranking.rank <= case.ranked_to
    return Ranking(
        np.where(left, np.nan, ranking.removed_at),
        np.where(left, -1, ranking.removed_by),
        np.where(left, 0, ranking.rank),
    )


def make_out(out: Path, cases: list[Case], target: Target | None = None, *, measure: str = "hash", **info: Any) -> Path:
    rows, records = [], []
    (out / "store" / "thumbnails").mkdir(parents=True)
    for number, case in enumerate(cases):
        volume, count = volume_id(str(number)), len(case.hashes)
        readable = np.array([index not in case.unreadable for index in range(count)])
        ranking = rank_case(case, measure, readable)
        for index, value in enumerate(case.hashes):
            by = ranking.removed_by[index]
            rows.append(
                (
                    slice_id(volume, index), volume, case.patient, case.series, f"{case.path}/IM{index}.dcm",
                    str(index), str(index * case.spacing), "64", "48", format_hash(value) if readable[index] else "",
                    format_number(ranking.removed_at[index]), slice_id(volume, by) if by >= 0 else "",
                    str(ranking.rank[index] or ""), case.unreadable.get(index, ""),
                )
            )  # fmt: skip
        record = {
            "volume": volume, "patient": case.patient, "series": case.series, "format": "dicom", "path": case.path,
            "slices": count, "height": 64, "width": 48, "spacing_mm": [case.spacing, 0.5, 0.5], "plane": "axial",
            "crc32": "0x00000000", "notes": list(case.notes),
        }  # fmt: skip
        if case.ranked_to:
            record["ranked_to"] = case.ranked_to
        records.append(record if case.first_number is None else {**record, "first_number": case.first_number})
        if case.thumbnails:
            grey = np.arange(count, dtype=np.uint8) * (250 // count)
            np.save(out / "store" / "thumbnails" / f"{volume}.npy", np.tile(grey[:, None, None], (1, 96, 96)))
    content = {"version": "9.9", "settings": {"pixels": "lung"}, "failures": [], "skipped": [], **info}
    content["settings"] = {"method": measure, **content["settings"]}
    write_manifest(out, rows, {**content, "volumes": records})
    Manifest.read(out).select(target or Target.of()).write(out, "default")
    return out


def walk_hashes(count: int, seed: int = 0, most: int = 3) -> list[int]:
    """Hashes that drift apart by up to `most` bits a step."""
    rng = np.random.default_rng(seed)
    value, result = 0, []
    for _ in range(count):
        for bit in rng.integers(0, 64, rng.integers(0, most + 1)).tolist():
            value ^= 1 << bit
        result.append(value)
    return result


def facts_of(out: Path) -> list[VolumeSummary]:
    return list(summarise(Manifest.read(out), Selection.read(out)))


# The slow, obvious rules


def bits_apart(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def count_exemplars(hashes: list[int], threshold: int) -> int:
    kept: list[int] = []
    for value in hashes:
        if all(bits_apart(value, other) > threshold for other in kept):
            kept.append(value)
    return len(kept)


def count_pairs(hashes: list[int], threshold: int) -> int:
    there = set(range(len(hashes)))
    pairs = [(bits_apart(hashes[i], hashes[j]), i, j) for j in range(len(hashes)) for i in range(j)]
    for distance, i, j in sorted(pairs):
        if distance <= threshold and {i, j} <= there:
            there.remove(j)
    return len(there)


# The page


class Page(HTMLParser):
    """Tables by id as rows of cell texts, the text of the page, its elements; fails on tags that do not match."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.marked: list[list[str]] = []
        self.texts: list[str] = []
        self._table: list[list[str]] = []
        self._mark = False
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._table = self.tables.setdefault(attributes.get("id", f"table {len(self.tables)}"), [])
        elif tag == "tr":
            self._table.append([])
            if attributes.get("class") == "chosen":
                self.marked.append(self._table[-1])
        elif tag in ("td", "th"):
            self._table[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)
            if "td" in self.open or "th" in self.open:
                self._table[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def bare(self) -> str:
        """The source without its pictures, whose base64 may hold any short word by chance."""
        return re.sub("base64,[A-Za-z0-9+/=]*", "", self.source)

    @property
    def numbers(self) -> dict[str, str]:
        """The tiles of the head: label and number."""
        return dict(re.findall(r"<dt>(?:<a[^>]*>)?([^<]*)(?:</a>)?</dt><dd>([^<]*)</dd>", self.source))

    @property
    def drawings(self) -> list[str]:
        sources = [attributes["src"] for tag, attributes in self.elements if tag == "img"]
        return [base64.b64decode(source.removeprefix("data:image/svg+xml;base64,")).decode() for source in sources]

    def tiles(self, kind: str) -> list[str]:
        names = [a["aria-label"] for _, a in self.elements if a.get("class") == f"tile {kind}"]
        return [name.removesuffix(f", {kind}") for name in names]


def report(out: Path) -> Page:
    return Page(write_report(out))


# Numbers


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 255), max_size=25))
def test_counts_of_all_thresholds_equal_one_run_each(hashes: list[int]) -> None:
    array = np.array(hashes, dtype=np.uint64)
    assert exemplar_counts(array).tolist() == [count_exemplars(hashes, bits) for bits in range(65)]
    removed_at = rank_slices("hash", array, np.ones(len(hashes), dtype=bool)).removed_at
    assert pair_counts(removed_at).tolist() == [count_pairs(hashes, bits) for bits in range(65)]


def test_opposite_hashes_stay_apart_until_64_bits() -> None:
    assert exemplar_counts(np.array([0, 2**64 - 1], dtype=np.uint64)).tolist() == [2] * 64 + [1]


def test_the_table_holds_both_rules_at_the_papers_thresholds(tmp_path: Path) -> None:
    volumes = [walk_hashes(60, 1), walk_hashes(45, 2), walk_hashes(1, 3)]
    page = report(make_out(tmp_path, [Case(hashes) for hashes in volumes]))
    expected = []
    for bits, paper in ((3, ["18.2 %", "22.3 %"]), (6, ["9.3 %", "9.0 %"]), (12, ["4.0 %", "3.6 %"])):
        cells = [f"{bits} bits (chosen)" if bits == 6 else f"{bits} bits"]
        for rule in (count_exemplars, count_pairs):
            kept = sum(rule(hashes, bits) for hashes in volumes)
            cells += [str(kept), f"{100 * kept / 106:.1f} %"]
        expected.append([*cells, *paper])
    found = [[cell.replace("\u00a0", " ") for cell in row] for row in page.tables["kept"][2:]]
    assert found == expected
    kept = sum(count_exemplars(hashes, 6) for hashes in volumes)
    share = f"{100 * kept / 106:.1f}\u00a0%"
    assert page.numbers == {"volumes": "3", "slices": "106", "slices kept": str(kept), "of the slices kept": share}
    assert "HASH at 6 bits, rule exemplars" in page.text
    assert "lessismore_transforms 9.9" in page.text
    assert "window lung" in page.text


@pytest.mark.parametrize(
    ("target", "chosen", "words"),
    [
        (Target.of(threshold=9), "9 bits (chosen)", "select OUT --threshold 12 --name hash12"),
        (Target.of(threshold=0), "0 bits (chosen)", "have the same hash"),
        (Target.of(threshold=64), "64 bits (chosen)", "select OUT --threshold 48 --name hash48"),
        (Target.of(threshold=12, rule="pairs"), "12 bits (chosen)", "--threshold 18 --rule pairs --name pairs18"),
        (Target.of(fraction=0.1), None, "select OUT --fraction 0.05 --name share5"),
    ],
)
def test_the_chosen_cut_is_marked(tmp_path: Path, target: Target, chosen: str | None, words: str) -> None:
    page = report(make_out(tmp_path, [Case(walk_hashes(50), thumbnails=True)], target))
    assert [row[0] for row in page.marked] == ([chosen] if chosen else [])
    assert words in page.text
    kept = len(Selection.read(tmp_path).kept_ids)
    cut = f"chosen: {target.threshold:g} bits, " if target.threshold is not None else "chosen: "
    assert f"{cut}{percent(kept / 50)}" in page.drawings[0]
    assert page.numbers["slice kept" if kept == 1 else "slices kept"] == str(kept)
    for name in ("LIDC-IDRI in the paper (18.2 / 9.3 / 4.0 % at", "PET-CT in the paper (22.3 / 9.0 / 3.6 % at"):
        assert name in page.drawings[0]


def test_a_run_as_released_walks_in_the_order_of_its_names(tmp_path: Path) -> None:
    hashes = walk_hashes(40, seed=3)
    page = report(
        make_out(tmp_path, [Case(hashes, first_number=95)], settings={"pixels": "released", "as_released": True})
    )
    walk = [hashes[index] for index in sorted(range(40), key=lambda index: str(95 + index))]
    assert [count_exemplars(order, 3) for order in (walk, hashes)] == [12, 13]
    assert page.tables["kept"][2][1] == "12"
    assert page.marked[0][1] == page.numbers["slices kept"]


# Slices


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
    (volume,) = facts_of(out)
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
    (volume,) = facts_of(make_out(tmp_path, [Case(hashes, unreadable={7: "x"})]))
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


# Other measures, and none


def count_similar(hashes: list[int], threshold: float) -> int:
    return count_pairs(hashes, int(64 * (1 - threshold) + 1e-9))


def plain(rows: list[list[str]]) -> list[list[str]]:
    return [[cell.replace("\u00a0", " ") for cell in row] for row in rows]


@pytest.mark.parametrize(("measure", "title"), [("ssim", "SSIM"), ("mi", "MI"), ("deepnet", "DeepNet")])
def test_a_similarity_has_a_curve_and_a_table_in_its_own_unit(tmp_path: Path, measure: str, title: str) -> None:
    volumes = [walk_hashes(60, 1, 9), walk_hashes(45, 2, 4), walk_hashes(1, 3)]
    best = 2 if measure == "mi" else 1
    target = Target.of(method=measure, threshold=best - 0.21875)
    out = make_out(tmp_path, [Case(hashes, thumbnails=True) for hashes in volumes], target, measure=measure)
    page, facts = report(out), facts_of(out)
    marks = levels(facts, measure)
    fallen = [value for volume in facts for value in volume.rankings[measure].removed_at if value == value]
    assert len(marks) >= 4
    assert marks == sorted(marks, reverse=True)
    assert min(fallen) - 0.006 <= marks[-1] < marks[0] <= max(fallen) + 0.006
    expected = []
    for mark in sorted({*marks, target.threshold}, reverse=True):
        kept = [count_similar(hashes, mark - best + 1) for hashes in volumes]
        shares = [100 * number / len(hashes) for number, hashes in zip(kept, volumes, strict=True)]
        ends = dict.fromkeys(f"{share:.1f} %" for share in (min(shares), max(shares)))
        chosen = " (chosen)" if mark == target.threshold else ""
        share = f"{100 * sum(kept) / 106:.1f} %"
        expected.append([f"{title} {mark:.4g}{chosen}", str(sum(kept)), share, " to ".join(ends)])
    rows = plain(page.tables[f"kept_by_{measure}"])
    assert rows[1:-3] == expected
    assert [row[:3] for row in rows[-3:]] == [
        ["fraction 0.5", "54", "50.9 %"], ["fraction 0.2", "22", "20.8 %"], ["fraction 0.1", "12", "11.3 %"],
    ]  # fmt: skip
    half = [
        min(value for value, rank in zip(ranking.removed_at, ranking.rank, strict=True) if rank > left)
        for ranking, left in ((facts[0].rankings[measure], 30), (facts[1].rankings[measure], 23))
    ]
    assert rows[-3][3] == f"{title} {min(half):.4g} to {title} {max(half):.4g}"
    assert plain(page.tables["kept"])[3][1] == str(sum(count_exemplars(hashes, 6) for hashes in volumes))

    assert [row[0] for row in page.marked] == [f"{title} {target.threshold:.4g} (chosen)"]
    kept_share = percent(len(Selection.read(out).kept_ids) / 106)
    assert f"chosen: {title} {target.threshold:.4g}, {kept_share}" in page.drawings[0]
    assert "in the paper" not in page.drawings[0]
    assert "LIDC-IDRI in the paper" in page.drawings[1]
    assert f"chosen: {title}" in page.drawings[2]
    assert f"the two are alike by at least {target.threshold:g}" in page.text
    assert f"select OUT --method {measure} --threshold " in page.text
    distance = Selection.read(out).slices["distance"].dropna()
    assert f"({len(distance)} removed, median {title} {distance.median():.4g}); at {best} the two" in page.text
    assert "bits" not in page.text[page.text.index("2. What the") : page.text.index("4. Volumes")]


def test_examples_of_a_similarity_fell_at_it_or_next_above(tmp_path: Path) -> None:
    hashes = walk_hashes(80, most=9)
    target = Target.of(method="ssim", threshold=0.85)
    (volume,) = facts_of(make_out(tmp_path, [Case(hashes)], target, measure="ssim"))
    pairs = nearest_pairs(volume, "ssim", [0.95, 0.9, 0.85, -0.5])
    assert pairs.keys() == {0.95, 0.9, 0.85, -0.5}
    for above, mark in ((2, 0.95), (0.95, 0.9), (0.9, 0.85), (0.85, -0.5)):
        kept, removed = pairs[mark]
        ranking = volume.rankings["ssim"]
        value = similarities(hashes)[kept, removed]
        assert value == min(at for at in ranking.removed_at if mark <= at < above)
        assert not ranking.removed_at[kept] > value


def test_the_advice_for_a_similarity_goes_in_its_direction(tmp_path: Path) -> None:
    hashes = walk_hashes(80, most=9)
    out = make_out(tmp_path, [Case(hashes)], Target.of(method="ssim", threshold=0.8), measure="ssim")
    text = report(out).text
    fewer, more = re.findall(r"--method ssim --threshold ([\d.]+) --name ssim\1", text)
    assert float(fewer) < 0.8 < float(more)
    assert count_similar(hashes, float(fewer)) < count_similar(hashes, 0.8) < count_similar(hashes, float(more))
    assert text.index("To keep fewer") < text.index(f"--threshold {fewer}") < text.index("To keep more")


def test_a_ranking_that_stopped_early_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    volumes = [walk_hashes(60, 1, 9), walk_hashes(45, 2, 4)]
    target = Target.of(method="ssim", fraction=0.2)
    out = make_out(
        tmp_path,
        [Case(hashes, ranked_to=target_count(len(hashes), 0.2), thumbnails=True) for hashes in volumes],
        target,
        measure="ssim",
    )
    page, facts = report(out), facts_of(out)
    ends = [float(np.nanmin(volume.rankings["ssim"].removed_at)) for volume in facts]
    rows = plain(page.tables["kept_by_ssim"])[1:]
    assert [row[:2] for row in rows[-2:]] == [["fraction 0.5", "53"], ["fraction 0.2 (chosen)", "21"]]
    known = [mark for mark in levels(facts, "ssim") if mark > max(ends)]
    assert 0 < len(known) < len(levels(facts, "ssim"))
    assert [row[:2] for row in rows[:-2]] == [
        [f"SSIM {mark:.4g}", str(sum(count_similar(hashes, mark) for hashes in volumes))] for mark in known
    ]
    assert (
        f"ranked only until the run's target was reached: a volume's line stops there, and the data set's where the "
        f"first volume's does, at SSIM {max(ends):.4g}" in page.text
    )
    assert "To keep fewer slices, reduce again: the ranking stopped before." in page.text
    assert "select OUT --method ssim --fraction 0.4 --name ssim_share40" in page.text
    assert "report OUT --selection ssim_share40" in page.text


def test_every_n_is_shown_beside_the_hash_curves(tmp_path: Path) -> None:
    hashes = [0, 0b1, 0b111, 0xFF, 0xFF, 0xFFFF, 0xFFFF]
    case = Case(hashes, unreadable={4: "x"}, thumbnails=True)
    page = report(make_out(tmp_path, [case], Target.of(method="every_n", step=3, offset=1)))
    assert page.marked == []
    assert f"chosen: {percent(2 / 7)}" in page.drawings[0]
    assert "One of every 3 slices stays, from slice 1 on; nothing is compared." in page.text
    assert "the share that the selection keeps, which was not made by HASH" in page.text
    assert "--method every_n --step 6 --name every6" in page.text
    assert "--method every_n --step 2 --name every2" in page.text
    # kept: 1 and (without 4) 5; 0, 2, 3 go with 1, 6 with 5
    assert "1 precedes 3: 0, 2–3 3 → 1, 7 bits 5 precedes 1: 6 6 → 5, 0 bits" in page.text
    assert "(4 removed, median 1.5 bits)" in page.text  # 1, 2, 7 and 0
    assert "0 1 2 3 4 unreadable 5 6" in page.text


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (Target.of(method="all"), ["Every slice that can be read stays", "select OUT --threshold 6 --name hash6"]),
        (
            Target.of(method="every_n", step_mm=5),
            ["One slice every 5 mm stays", "--step_mm 10 --name every10mm", "--step_mm 2.5 --name every2.5mm"],
        ),
        (
            Target.of(method="every_n", fraction=0.1),
            ["10.0 % of each volume's slices stay, evenly spread", "--fraction 0.05 --name every_share5"],
        ),
        (Target.of(method="every_n", step=1), ["--step 2 --name every2"]),
        (Target.of(threshold=6), ["--threshold 12 --name hash12", "--threshold 3 --name hash3"]),
        (Target.of(fraction=1), ["--fraction 0.5 --name share50"]),
    ],
)
@pytest.mark.parametrize("measure", ["hash", "ssim"])
def test_a_hash_selection_or_none_of_any_ranking(
    tmp_path: Path, measure: str, target: Target, words: list[str]
) -> None:
    hashes = walk_hashes(50)
    page = report(make_out(tmp_path, [Case(hashes, thumbnails=True)], target, measure=measure))
    text = page.text.replace("\u00a0", " ")
    for part in words:
        assert part in text
    kept = len(Selection.read(tmp_path).kept_ids)
    assert f"{percent(kept / 50)}" in page.drawings[0]
    assert ("which was not made by SSIM" in text) is (measure == "ssim")
    assert plain(page.tables["kept"])[3][1:4:2] == [str(count_exemplars(hashes, 6)), str(count_pairs(hashes, 6))]
    fallen = rank_slices("hash", np.array(hashes, dtype=np.uint64), np.ones(50, dtype=bool)).removed_at
    (volume,) = facts_of(tmp_path)
    np.testing.assert_array_equal(volume.rankings["hash"].removed_at, fallen)


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


@pytest.mark.parametrize("method", ["hash", "ssim", "every_n", "all"])
def test_volumes_without_any_candidate(tmp_path: Path, method: str) -> None:
    target = Target.of(method=method)
    case = Case([5, 6], unreadable=dict.fromkeys((0, 1), "no body: 0.00 % of the slice"), thumbnails=True)
    page = report(make_out(tmp_path, [case, case], target, measure=target.measure))
    assert page.numbers["slices kept"] == "0"
    assert plain(page.tables["kept"])[2][1:3] == ["0", "0.0 %"]
    assert "4 slices without a body were left out." in page.text


# Distances, outliers, failures


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
    z = robust_z(facts_of(out))
    assert rows[0][5] == f"{z[20]:+.1f}"
    assert z[21] == 0  # one slice says nothing


def test_robust_z_without_differing_spacings_is_that_of_the_log_shares(tmp_path: Path) -> None:
    kept = [1, 2, 3, 4, 5, 6, 8, 10, 10]
    hashes = [(1 << (6 * index)) * 63 for index in range(10)]
    cases = [Case(hashes[:number] + hashes[:1] * (10 - number)) for number in kept]
    logs = np.log(np.array(kept) / 10)
    mad = np.median(np.abs(logs - np.median(logs)))
    np.testing.assert_allclose(robust_z(facts_of(make_out(tmp_path, cases))), 0.6745 * (logs - np.median(logs)) / mad)


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
    assert "script" not in {tag for tag, _ in page.elements}


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


# Privacy


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Doe^John 1970/CT 3/IM0.dcm: truncated", "truncated"),
        ("a copy of Doe^John 1970/CT 3/IM1.dcm (same SOPInstanceUID)", "a copy of … (same SOPInstanceUID)"),
        ("at the same position as IM1.dcm, which was kept", "at the same position as …, which was kept"),
        ("/mnt/My Data/Doe^John 1970/CT 3/IM1.dcm: No such file", "No such file"),
        ("cannot identify image file '/mnt/My Data/x y.png'", "cannot identify image file …"),
        ("could not convert b'DOE^JANE' to float", "could not convert … to float"),
        ("series 1.2.840.99999.1 of patient-0815.", "series … of …"),
        (r"C:\Users\Jane Doe\scan.nii is damaged", "is damaged"),
        ("no CT image: modality MR, MR Image Storage", "no CT image: modality MR, MR Image Storage"),
        ("the file isn't complete: it's 3.5 MB", "the file isn't complete: it's 3.5 MB"),
        ("Doe^John 1970/CT 3/IM0.dcm", "no reason given"),
    ],
)  # fmt: skip
def test_messages_lose_what_is_private(tmp_path: Path, message: str, expected: str) -> None:
    assert anonymiser(Manifest.read(make_out(tmp_path, [Case([0, 1])])))(message) == expected


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
    assert not tags & {"script", "link", "iframe", "object"}
    for tag, attributes in page.elements:
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
        if tag == "img" or attributes.get("role") == "img":
            assert attributes.get("alt") or attributes.get("aria-label")
    assert set(re.findall(r"url\((.{5})", page.source)) == {"data:"}
    assert "@import" not in page.source
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


# Edges


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


def test_ranges_and_shares_read_well() -> None:
    assert ranges([]) == ""
    assert ranges([3]) == "3"
    assert ranges([1, 2, 3, 7]) == "1–3, 7"
    assert ranges([1, 3, 5, 6]) == "1, 3, …"
    assert [percent(share) for share in (0, 0.0036, 0.01, 0.2204, 1)] == [
        "0.0\u00a0%", "0.36\u00a0%", "1.0\u00a0%", "22.0\u00a0%", "100.0\u00a0%",
    ]  # fmt: skip


def test_real_volumes(real_data: Path, tmp_path: Path) -> None:
    from lessismore_transforms.pipeline.run import reduce_dataset

    (tmp_path / "key").write_bytes(b"0" * 32)
    reduce_dataset(real_data / "ct", tmp_path / "out", workers=0, patient_key=tmp_path / "key")
    manifest = Manifest.read(tmp_path / "out")
    volumes = [[int(value) for value in rows["hash"]] for _, rows in manifest.by_volume()]
    page = report(tmp_path / "out")
    for row, bits in zip(page.tables["kept"][2:], (3, 6, 12), strict=True):
        assert row[1] == str(sum(count_exemplars(hashes, bits) for hashes in volumes))
        assert row[3] == str(sum(count_pairs(hashes, bits) for hashes in volumes))
    for path in [record["path"] for record in manifest.volumes]:
        assert not any(part in page.bare for part in path.split("/"))
    assert len(page.tiles("kept")) == 2 * int(page.numbers["slices kept"])
