from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.across_volumes import select_across
from lessismore_transforms.reduced.manifest import COLUMNS, Manifest
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduction.target import Target


def manifest_of(*volumes, prefix="v", key="hashed with key 0"):
    """A manifest of (patient, spacing, hashes); a hash of None is a slice that could not be read."""
    rows, records = [], []
    for number, (patient, spacing, hashes) in enumerate(volumes):
        name = f"{prefix}{number}"
        records.append({"volume": name, "patient": patient, "slices": len(hashes), "spacing_mm": [spacing, 1.0, 1.0]})
        for index, value in enumerate(hashes):
            row = dict.fromkeys(COLUMNS, "")
            row |= {"slice_id": f"{name}_{index:04d}", "volume": name, "patient": patient, "index": index}
            row |= {"hash": value or 0, "reason": "unreadable" if value is None else "", "path": f"{9 - number}.nii"}
            rows.append(row)
    slices = pd.DataFrame(rows, columns=list(COLUMNS))
    slices["hash"] = slices["hash"].astype(np.uint64)
    return Manifest(slices, {"settings": {"patients": key}, "volumes": records}, Path())


def first_come(manifests, threshold, scope, walk):
    """The rule word for word: {slice_id: slice_id of its exemplar, or "" for a kept one}."""
    rows = [row for manifest in manifests for row in manifest.slices.to_dict("records")]
    kept, by = [], {}
    for row in (rows[i] for i in walk if not rows[i]["reason"]):
        for other in kept:
            same = scope == "all" or row[scope] == other[scope]
            if same and (row["hash"] ^ other["hash"]).bit_count() <= threshold:
                by[row["slice_id"]] = other["slice_id"]
                break
        else:
            kept.append(row)
            by[row["slice_id"]] = ""
    return by


def outcome(selections):
    """{slice_id: its exemplar, "" for a kept one}, of the slices that took part."""
    tables = [selection.slices for selection in selections]
    rows = [row for table in tables for row in table.to_dict("records")]
    assert all(bool(row["kept_by"]) != np.isnan(row["distance"]) for row in rows)
    return {row["slice_id"]: row["kept_by"] for row in rows if row["kept"] or row["kept_by"]}


def test_the_thinnest_volume_keeps_its_slices():
    manifest = manifest_of(("p", 5.0, [0b0, 0xFF]), ("q", 1.0, [0b11, 0xFFFF]), ("p", 2.5, [0b1, 0xFFFF00]))
    by = {"v0_0000": "v1_0000", "v0_0001": "", "v1_0000": "", "v1_0001": "", "v2_0000": "v1_0000", "v2_0001": ""}
    assert outcome(select_across([manifest], 3)) == by
    by |= {"v0_0000": "v2_0000", "v2_0000": ""}
    assert outcome(select_across([manifest], 3, scope="patient")) == by
    by |= {"v0_0000": ""}
    assert outcome(select_across([manifest], 3, scope="volume")) == by


def test_the_released_order_takes_the_volumes_as_they_come():
    manifest = manifest_of(("p", 5.0, [0b0, 0xFF]), ("q", 1.0, [0b11, 0xFFFF]), ("p", 1.0, [0b1]))
    (selection,) = select_across([manifest], 3, order="manifest")
    assert selection.kept_ids == ["v0_0000", "v0_0001", "v1_0001"]
    assert selection.slices["kept_by"].tolist() == ["", "", "v0_0000", "", "v0_0000"]
    np.testing.assert_array_equal(selection.slices["distance"], [np.nan, np.nan, 2, np.nan, 1])
    assert selection.target == Target.of(threshold=3, scope="all")


def test_an_order_of_rows():
    manifest = manifest_of(("p", 1.0, [0b0, 0b1]), ("q", 1.0, [0b11, 0xFFFF]))
    by = {"v0_0000": "v0_0001", "v0_0001": "", "v1_0000": "v0_0001", "v1_0001": ""}
    assert outcome(select_across([manifest], 3, order=[1, 0, 2, 3])) == by
    paths = manifest.slices["path"].argsort(kind="stable")  # 8.nii is the second volume
    by = {"v0_0000": "v1_0000", "v0_0001": "v1_0000", "v1_0000": "", "v1_0001": ""}
    assert outcome(select_across([manifest], 3, order=paths)) == by


def test_slices_that_cannot_be_read_take_no_part():
    manifest = manifest_of(("p", 1.0, [None, 0, None]), ("q", 1.0, [0b1, None]))
    (selection,) = select_across([manifest], 64)
    assert selection.slices["kept"].tolist() == [False, True, False, False, False]
    assert selection.slices["kept_by"].tolist() == ["", "", "", "v0_0001", ""]


def test_blank_slices_of_all_volumes_have_one_exemplar():
    manifest = manifest_of(*[(f"p{i}", 1.0, [0] * 40) for i in range(200)])
    (selection,) = select_across([manifest], 0)
    assert selection.kept_ids == ["v0_0000"]
    (selection,) = select_across([manifest], 0, scope="patient")
    assert len(selection.kept_ids) == 200


def test_several_outputs_give_a_selection_each():
    one, two = manifest_of(("p", 2.0, [0, 0xFF])), manifest_of(("p", 1.0, [0b1]), ("q", 3.0, [0xFE]), prefix="w")
    first, second = select_across([one, two], 3)
    assert first.slices["slice_id"].tolist() == ["v0_0000", "v0_0001"]
    assert first.slices["kept_by"].tolist() == ["w0_0000", ""]
    assert second.slices["kept_by"].tolist() == ["", "v0_0001"]
    assert second.slices.index.tolist() == [0, 1]
    _, second = select_across([one, two], 3, scope="patient")
    assert second.slices["kept"].tolist() == [True, True]


def test_mistakes_of_a_selection_are_named():
    manifest = manifest_of(("p", 1.0, [0, 1]))
    with pytest.raises(ValueError, match="expected a scope out of volume, patient, all, found 'series'"):
        select_across([manifest], 6, scope="series")
    with pytest.raises(ValueError, match="expected an order out of thinnest, manifest or one of rows, found 'thick'"):
        select_across([manifest], 6, order="thick")
    with pytest.raises(ValueError, match="names each of 0"):
        select_across([manifest], 6, order=[1, 1])
    with pytest.raises(ValueError, match="HASH threshold of 0 to 64"):
        select_across([manifest], 65)
    other = manifest_of(("p", 1.0, [0]), key="hashed with key 1")
    select_across([manifest, other], 6)
    with pytest.raises(ValueError, match="expected the same patient key, found hashed with key 0, hashed with key 1"):
        select_across([manifest, other], 6, scope="patient")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_selections_equal_the_rule(data):
    hashes = st.lists(st.one_of(st.none(), st.sampled_from([0, 1, 3, 7, 0xFF, 0xFFF])), max_size=6)
    volume = st.tuples(st.sampled_from("pqr"), st.sampled_from([1.0, 2.5, 5.0]), hashes)
    manifests = [
        manifest_of(*data.draw(st.lists(volume, max_size=5)), prefix=prefix)
        for prefix in data.draw(st.sampled_from(["v", "vw"]))
    ]
    threshold, scope = data.draw(st.integers(0, 8)), data.draw(st.sampled_from(["volume", "patient", "all"]))
    order = data.draw(st.sampled_from(["thinnest", "manifest"]))
    volumes = [record for manifest in manifests for record in manifest.volumes]
    rows = np.split(np.arange(sum(r["slices"] for r in volumes)), np.cumsum([r["slices"] for r in volumes]))
    pairs = list(zip(volumes, rows, strict=False))
    if order == "thinnest":
        pairs.sort(key=lambda pair: pair[0]["spacing_mm"][0])
    walk = [row for _, part in pairs for row in part]
    expected = first_come(manifests, threshold, scope, walk)
    assert outcome(select_across(manifests, threshold, scope=scope, order=order)) == expected
    shuffled = data.draw(st.permutations(range(len(walk))))
    expected = first_come(manifests, threshold, scope, shuffled)
    assert outcome(select_across(manifests, threshold, scope=scope, order=shuffled)) == expected


@pytest.fixture(scope="module")
def outputs(small_data, tmp_path_factory) -> list[Path]:
    """The same data set reduced, once as released."""
    folders = [tmp_path_factory.mktemp("duplicates") / name for name in ("ours", "released")]
    for folder, as_released in zip(folders, (False, True), strict=True):
        target = Target.of(threshold=8, rule="exemplars")
        reduce_dataset(small_data, folder, Settings(target=target, as_released=as_released), workers=0)
    return folders


@pytest.mark.parametrize("number", [0, 1])
def test_the_scope_of_a_volume_is_what_the_manifest_selects(outputs, number, tmp_path):
    """In either order of the volumes; and it can be written and read."""
    manifest = Manifest.read(outputs[number])
    for threshold, order in itertools.product((3, 8, 16), ("thinnest", "manifest")):
        expected = manifest.select(Target.of(threshold=threshold))
        (selection,) = select_across([manifest], threshold, scope="volume", order=order)
        pd.testing.assert_frame_equal(selection.slices, expected.slices, check_dtype=False)
    selection.write(tmp_path, "across")
    assert Selection.read(tmp_path, "across").kept_ids == expected.kept_ids


def test_a_data_set_against_itself_loses_all_that_is_there_twice(outputs):
    """The same volumes in two outputs: the second keeps nothing."""
    manifest = Manifest.read(outputs[0])
    first, second = select_across([manifest, manifest], 8)
    assert first.kept_ids
    assert second.kept_ids == []
