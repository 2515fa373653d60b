from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lessismore_transforms.phantom import phantom_scan
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.duplicates import (
    CORRELATION,
    RADIUS,
    TRANSFORMS,
    images_in,
    near_duplicates,
    select_across,
)
from lessismore_transforms.reduced.manifest import COLUMNS, Manifest, Selection
from lessismore_transforms.reduction.intensity import Window, min_max_uint8, window_uint8
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.volumes import find_volumes, read_slices

# --- Redundancy across volumes and patients


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


# --- Copies between data sets


def jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def resized(image, scale):
    height, width = image.shape
    size = round(width * scale), round(height * scale)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def cropped(image, share, rng):
    height, width = image.shape
    rows, columns = round(height * share), round(width * share)
    top, left = rng.integers(0, rows + 1), rng.integers(0, columns + 1)
    return np.ascontiguousarray(image[top : top + height - rows, left : left + width - columns])


def copies(image, hu, rng):
    """The image as others publish it, kind by kind; windows where there is HU."""
    kinds = {
        "identical": image,
        "mirrored": image[:, ::-1],
        "turned by 90 degrees": np.rot90(image),
        "resized 0.75": resized(image, 0.75),
        "resized 0.5": resized(image, 0.5),
        "JPEG 75": jpeg(image, 75),
        "JPEG 50": jpeg(image, 50),
        "brightness + 20 %": np.clip(image * 1.2, 0, 255).astype(np.uint8),
        "brightness - 20 %": (image * 0.8).astype(np.uint8),
        "gamma 0.6": (255 * (image / 255) ** 0.6).astype(np.uint8),
        "cropped by 5 %": cropped(image, 0.05, rng),
    }
    if hu is not None:
        lung, soft = window_uint8(hu, Window.parse("lung")), window_uint8(hu, Window.parse("40/400"))
        kinds |= {
            "lung window": lung,
            "soft tissue window": soft,
            "lung, mirrored, 0.5, JPEG 75": jpeg(resized(np.ascontiguousarray(lung[:, ::-1]), 0.5), 75),
            "soft, cropped, 0.5, JPEG 75": jpeg(resized(cropped(soft, 0.05, rng), 0.5), 75),
        }
    return {kind: np.ascontiguousarray(copy) for kind, copy in kinds.items()}


def recall_table(images, copies_of, unrelated):
    """A row per kind of copy: how many, share found, least correlation, most bits; the last row: false pairs.

    Args:
        images: (name, image) of the first set.
        copies_of: kind of copy to (name of the original, image).
        unrelated: (name, image) of which none is in the first set.
    """
    rows = []
    for kind, planted in copies_of.items():
        found = near_duplicates(images, planted)
        own = found[found["image_a"] == found["image_b"]]
        rows.append((kind, len(planted), len(own) / len(planted), own["correlation"].min(), own["bits"].max()))
    false = near_duplicates(images, unrelated)
    rows.append(("unrelated images", len(unrelated), len(false), false["correlation"].max(), false["bits"].min()))
    return pd.DataFrame(rows, columns=["kind", "images", "found", "correlation", "bits"]).set_index("kind")


def test_recall_and_false_pairs_on_real_slices(real_data):
    """The figures in the docstring of `near_duplicates`: `pytest -s -k recall tests/test_duplicates.py` prints them."""
    rng = np.random.default_rng(0)
    images, planted = [], {}
    for volume in find_volumes(real_data / "ct").volumes:
        has_hu = "uint8" not in volume.path
        for piece in itertools.islice(read_slices(volume, real_data / "ct"), 0, None, 4):
            name = f"{volume.path} {piece.index}"
            image = min_max_uint8(piece.hu, lower=-1024.0)
            images.append((name, image))
            for kind, copy in copies(image, piece.hu if has_hu else None, rng).items():
                planted.setdefault(kind, []).append((name, copy))
    unrelated = [*images_in(real_data / "covid_ct"), *images_in(real_data / "head_ct_hemorrhage")]
    table = recall_table(images, planted, unrelated)
    print(f"\n{len(images)} images, radius {RADIUS}, correlation {CORRELATION}\n{table.round(3).to_string()}")

    recall = table["found"].drop("unrelated images")
    hard = ["cropped by 5 %", "soft, cropped, 0.5, JPEG 75"]
    assert (recall.drop(hard) == 1).all(), recall[recall < 1]
    assert (recall[hard] >= 0.95).all(), recall[hard]
    assert table.loc["unrelated images", "found"] <= 3  # of 87,032 pairs; a plain disc of the head phantom
    patients = [name.split()[0] for name, _ in images]
    assert len(set(patients)) == 5
    pairs = near_duplicates(images, images)
    across = pairs[pairs["image_a"].str.split().str[0] != pairs["image_b"].str.split().str[0]]
    assert len(across) <= 5  # other patients; the phantom again


@pytest.fixture(scope="module")
def pictures() -> list[tuple[str, np.ndarray]]:
    slices = min_max_uint8(phantom_scan(0, slices=32, size=96).hu)
    return [(f"slice {i}", slices[i]) for i in range(0, 32, 8)]


def test_the_transform_brings_the_second_image_onto_the_first(pictures):
    for name, transform in TRANSFORMS.items():
        moved = [(key, np.ascontiguousarray(transform(image))) for key, image in pictures]
        found = near_duplicates(moved, pictures)
        own = found[found["image_a"] == found["image_b"]]
        assert own["image_a"].tolist() == [key for key, _ in pictures]
        assert set(own["transform"]) == {name}
        assert (own["bits"] == 0).all()
        assert (own["correlation"] > 0.97).all()


def test_names_of_transforms_are_pillow_s(pictures):
    image = pictures[1][1][:80]
    for name, transform in TRANSFORMS.items():
        if name != "none":
            expected = np.asarray(Image.fromarray(image).transpose(Image.Transpose[name.upper()]))
            np.testing.assert_array_equal(transform(image), expected)


def test_identical_images_correlate_by_one_and_come_in_order(pictures):
    found = near_duplicates(pictures[::-1], pictures, correlation=1.0)
    assert found["image_a"].tolist() == found["image_b"].tolist() == [name for name, _ in pictures[::-1]]
    assert found["correlation"].tolist() == [1.0] * 4
    assert found["transform"].tolist() == ["none"] * 4
    assert list(found.columns) == ["image_a", "image_b", "bits", "correlation", "transform"]


def test_the_result_does_not_depend_on_the_blocks(pictures, monkeypatch):
    whole = near_duplicates(pictures, pictures, radius=64, correlation=0.01)
    assert len(whole) > 4
    monkeypatch.setattr("lessismore_transforms.reduced.duplicates._PAIRS", 40)
    pd.testing.assert_frame_equal(near_duplicates(iter(pictures), pictures, radius=64, correlation=0.01), whole)


def test_correlation_and_radius_are_limits_that_count(pictures):
    whole = near_duplicates(pictures, pictures, radius=64, correlation=0.01).sort_values("correlation")
    row = whole.iloc[0]
    assert len(near_duplicates(pictures, pictures, radius=64, correlation=row["correlation"])) == len(whole)
    above = np.nextafter(row["correlation"], 1)
    assert len(near_duplicates(pictures, pictures, radius=64, correlation=above)) < len(whole)
    assert near_duplicates(pictures, pictures, radius=64, correlation=0.01)["bits"].max() > 6
    assert near_duplicates(pictures, pictures, radius=6, correlation=0.01)["bits"].max() <= 6
    with pytest.raises(ValueError, match="expected a correlation above 0"):
        near_duplicates(pictures, pictures, correlation=0)


def slow_correlation(one, other, field, shift):
    """Mean cosine between gradients as complex numbers, each field of `one` at its best place in `other`."""

    def directions(grey):
        gradient = np.zeros(grey.shape, complex)
        gradient[1:-1, 1:-1] = grey[1:-1, 2:] - grey[1:-1, :-2] + 1j * (grey[2:, 1:-1] - grey[:-2, 1:-1])
        size = np.abs(gradient)
        return np.where(size > 8, gradient / np.maximum(size, 1), 0)

    first, second = directions(one), directions(other)
    padded, total = np.pad(second, shift), 0.0
    for top, left in itertools.product(range(0, len(one), field), repeat=2):
        part = first[top : top + field, left : left + field].conj()
        places = itertools.product(range(2 * shift + 1), repeat=2)
        facing = (padded[top + y : top + y + field, left + x : left + x + field] for y, x in places)
        total += max(0, *((part * window).sum().real for window in facing))
    return total / min((first != 0).sum(), (second != 0).sum())


def test_correlations_equal_a_slow_implementation(pictures):
    def thumbnail(image):
        return min_max_uint8(np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR))) * 1.0

    rng = np.random.default_rng(3)
    others = [(f"{name}, cropped", cropped(image, 0.05, rng)) for name, image in pictures]
    found = near_duplicates(pictures, others, radius=64, correlation=0.01).set_index(["image_a", "image_b"])
    for (name, image), (other_name, other) in itertools.product(pictures, others):
        one, scores = thumbnail(image), {}
        for transform, apply in TRANSFORMS.items():
            two = apply(thumbnail(other))
            small = [grey.reshape(32, 2, 32, 2).mean((1, 3)) for grey in (one, two)]
            if slow_correlation(*small, 32, 1) >= 0.55:
                scores[slow_correlation(one, two, 16, 3)] = transform
        assert ((name, other_name) in found.index) == bool(scores)
        if scores:
            row = found.loc[(name, other_name)]
            assert row["correlation"] == pytest.approx(max(scores), abs=0.01)  # directions have 8 bits
            assert row["transform"] == scores[max(scores)]
    assert 4 <= len(found) < 16


def test_images_without_features_match_nothing(pictures):
    rng = np.random.default_rng(0)
    blank = [("black", np.zeros((64, 64), np.uint8)), ("white", np.full((64, 64), 255, np.uint8))]
    blank += [("dot", np.pad(np.full((2, 2), 255, np.uint8), 31))]
    assert near_duplicates(blank, blank).empty
    assert near_duplicates(blank, pictures).empty
    assert near_duplicates(pictures, blank).empty
    assert near_duplicates([], []).empty
    noise = [(str(i), rng.integers(0, 256, (64, 64), np.uint8)) for i in range(40)]
    found = near_duplicates(noise, noise)
    assert (found["image_a"] == found["image_b"]).all()


def test_images_of_a_folder_and_of_an_output(outputs, pictures, tmp_path):
    grey = pictures[2][1]
    (tmp_path / "b").mkdir()
    Image.fromarray(grey).save(tmp_path / "b" / "grey.png")
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "a.PNG")
    Image.fromarray(np.dstack([grey, np.full_like(grey, 255)]), "LA").save(tmp_path / "c.png")
    Image.fromarray(grey.astype(np.uint16) * 200).save(tmp_path / "deep.png")
    Image.fromarray(grey).save(tmp_path / "e.jpg", quality=95)
    (tmp_path / "notes.txt").write_text("none")
    read = dict(images_in(tmp_path))
    assert list(read) == ["a.PNG", "b/grey.png", "c.png", "deep.png", "e.jpg"]
    for name in ("a.PNG", "b/grey.png", "c.png", "deep.png"):
        np.testing.assert_array_equal(read[name], grey)
    assert set(near_duplicates(images_in(tmp_path), pictures[2:3])["image_a"]) == set(read)

    kept = dict(images_in(outputs[0]))
    assert list(kept) == Selection.read(outputs[0]).kept_ids
    assert all(image.dtype == np.uint8 and image.shape == (48, 48) for image in kept.values())


def test_folders_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ValueError, match="expected PNG or JPEG files or an output of `reduce`"):
        list(images_in(tmp_path))
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image"):
        list(images_in(tmp_path))
