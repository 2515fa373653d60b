from __future__ import annotations

from pathlib import Path

from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.select import select
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
