from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from report_cases import (
    Case,
    count_exemplars,
    count_pairs,
    count_similar,
    make_out,
    plain,
    report,
    summaries_of,
    walk_hashes,
)

from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduction.measures import rank_slices
from lessismore_transforms.reduction.selection import target_count
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.report.summary import (
    levels,
)
from lessismore_transforms.wording import percent


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


@pytest.mark.parametrize(("measure", "title"), [("ssim", "SSIM"), ("mi", "MI"), ("deepnet", "DeepNet")])
def test_a_similarity_has_a_curve_and_a_table_in_its_own_unit(tmp_path: Path, measure: str, title: str) -> None:
    volumes = [walk_hashes(60, 1, 9), walk_hashes(45, 2, 4), walk_hashes(1, 3)]
    best = 2 if measure == "mi" else 1
    target = Target.of(method=measure, threshold=best - 0.21875)
    out = make_out(tmp_path, [Case(hashes, thumbnails=True) for hashes in volumes], target, measure=measure)
    page, summaries = report(out), summaries_of(out)
    marks = levels(summaries, measure)
    fallen = [value for volume in summaries for value in volume.rankings[measure].removed_at if value == value]
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
        for ranking, left in ((summaries[0].rankings[measure], 30), (summaries[1].rankings[measure], 23))
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


def test_a_ranking_that_stopped_early_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    volumes = [walk_hashes(60, 1, 9), walk_hashes(45, 2, 4)]
    target = Target.of(method="ssim", fraction=0.2)
    out = make_out(
        tmp_path,
        [Case(hashes, ranked_to=target_count(len(hashes), 0.2), thumbnails=True) for hashes in volumes],
        target,
        measure="ssim",
    )
    page, summaries = report(out), summaries_of(out)
    ends = [float(np.nanmin(volume.rankings["ssim"].removed_at)) for volume in summaries]
    rows = plain(page.tables["kept_by_ssim"])[1:]
    assert [row[:2] for row in rows[-2:]] == [["fraction 0.5", "53"], ["fraction 0.2 (chosen)", "21"]]
    known = [mark for mark in levels(summaries, "ssim") if mark > max(ends)]
    assert 0 < len(known) < len(levels(summaries, "ssim"))
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
    (volume,) = summaries_of(tmp_path)
    np.testing.assert_array_equal(volume.rankings["hash"].removed_at, fallen)
