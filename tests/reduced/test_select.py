from __future__ import annotations

from pathlib import Path

import pytest

from lessismore_transforms.errors import ManifestError, UserError
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.select import select
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduction.target import Target


def test_one_manifest_equals_a_run_per_threshold(small_data: Path, tmp_path: Path) -> None:
    reduce_dataset(small_data, tmp_path / "all", workers=0)
    for threshold in range(65):
        rule = ("exemplars", "pairs")[threshold % 2]
        target = Target.of(threshold=threshold, rule=rule)
        reduce_dataset(small_data, tmp_path / f"run{threshold}", Settings(target), workers=0)
        select(tmp_path / "all", target, f"t{threshold}")
        for suffix in ("csv", "json"):
            drawn = (tmp_path / "all" / "selections" / f"t{threshold}.{suffix}").read_text()
            own = (tmp_path / f"run{threshold}" / "selections" / f"default.{suffix}").read_text()
            assert drawn.replace(f'"t{threshold}"', '"default"') == own
        assert (tmp_path / f"run{threshold}" / "manifest.csv").read_bytes() == (
            tmp_path / "all" / "manifest.csv"
        ).read_bytes()


def test_selections_like_another_keep_as_many_slices_of_each_volume(small_data: Path, tmp_path: Path) -> None:
    reduce_dataset(small_data, tmp_path, workers=0)
    base, _ = select(tmp_path, Target.of(threshold=3), "base")
    volumes = base.slices["slice_id"].str[:16]
    wanted = base.slices["kept"].groupby(volumes).sum()
    assert wanted.nunique() > 1  # volumes differ, so that a wrong count is seen
    found = {}
    for name, options in {
        "even": {"method": "every_n"},
        "drawn": {"method": "random"},
        "again": {"method": "random", "seed": 0},
        "anew": {"method": "random", "seed": 1},
    }.items():
        target = Target.of(**options, like="base")
        selection, _ = select(tmp_path, target, name)
        assert (selection.slices["kept"].groupby(volumes).sum() == wanted).all()
        assert Selection.read_target(tmp_path, name) == target
        found[name] = selection.kept_ids
    assert found["drawn"] == found["again"]
    assert len({*map(tuple, found.values())}) == 3
    for volume, rows in base.slices.groupby(volumes):  # evenly, by hand
        places = [place for place, name in enumerate(rows["slice_id"]) if name in set(found["even"])]
        assert places == [number * len(rows) // wanted[volume] for number in range(wanted[volume])]


def test_a_selection_like_none_is_refused(small_data: Path, tmp_path: Path) -> None:
    reduce_dataset(small_data, tmp_path, workers=0)
    with pytest.raises(ManifestError, match="no selection 'base'"):
        select(tmp_path, Target.of(method="random", like="base"), "drawn")
    with pytest.raises(UserError, match="like itself"):
        select(tmp_path, Target.of(method="random", like="drawn"), "drawn")
