from __future__ import annotations

import io
import itertools

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lessismore_transforms.phantom import phantom_scan
from lessismore_transforms.reduced.pictures import images_in
from lessismore_transforms.reduction.intensity import Window, min_max_uint8, window_uint8
from lessismore_transforms.reduction.near_duplicates import (
    CORRELATION,
    RADIUS,
    TRANSFORMS,
    _directions,
    _multiply_fields,
    _multiply_whole,
    near_duplicates,
)
from lessismore_transforms.volumes import find_volumes, read_slices


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
    """The figures in the docstring of `near_duplicates`, which `pytest -s -k recall` prints."""
    rng = np.random.default_rng(0)
    images, planted = [], {}
    for volume in find_volumes(real_data / "ct").volumes:
        has_hu = "uint8" not in volume.path
        for ct_slice in itertools.islice(read_slices(volume, real_data / "ct"), 0, None, 4):
            name = f"{volume.path} {ct_slice.index}"
            image = min_max_uint8(ct_slice.hu, lower=-1024.0)
            images.append((name, image))
            for kind, copy in copies(image, ct_slice.hu if has_hu else None, rng).items():
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
    monkeypatch.setattr("lessismore_transforms.reduction.near_duplicates._PAIRS", 40)
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


def plain_products(one, other, field, shift):
    """The same sum in whole numbers, each field at its best place in the other image, around which all is 0."""
    padded, total = np.pad(other.astype(np.int64), ((0, 0), (shift, shift), (shift, shift))), 0
    for top, left in itertools.product(range(0, one.shape[1], field), repeat=2):
        part = one[:, top : top + field, left : left + field].astype(np.int64)
        places = itertools.product(range(top, top + 2 * shift + 1), range(left, left + 2 * shift + 1))
        total += max(0, *((part * padded[:, y : y + field, x : x + field]).sum() for y, x in places))
    return total


@pytest.mark.parametrize(
    ("multiply", "side", "field", "shift"), [(_multiply_whole, 32, 32, 1), (_multiply_fields, 64, 16, 3)]
)
def test_what_a_shift_brings_beyond_the_border_counts_nothing(multiply, side, field, shift):
    rng = np.random.default_rng(7)
    stripes = np.zeros((4, side, side), np.uint8)
    for number, edge in enumerate((2, side - 2)):  # gradients beside the left or the right border, the upper or lower
        stripes[number, :, edge:], stripes[2 + number, edge:] = 255, 255
    images = _directions(np.concatenate([rng.integers(0, 256, (4, side, side), np.uint8), stripes]))
    assert all(images[:, :, y, 1:-1].any() and images[:, :, 1:-1, y].any() for y in (1, -2))
    assert not any(images[:, :, y].any() or images[..., y].any() for y in (0, -1))
    first, second = (each.ravel() for each in np.mgrid[: len(images), : len(images)])
    products = np.empty(len(first), np.int64)
    multiply(images, images, first, second, products)
    expected = [plain_products(images[i], images[j], field, shift) for i, j in zip(first, second, strict=True)]
    assert products.tolist() == expected
    left, right = products.reshape(8, 8)[4, [4, 5]]
    assert left == 2 * 127**2 * (side - 2)  # two columns of the whole height, but for its ends
    assert right == 0


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
