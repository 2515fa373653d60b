"""Splits of own pictures: what stays together, what is official, and groups of near-duplicates."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lessismore_transforms.classification import protocol
from lessismore_transforms.classification.examples import Example, Examples, Listing, read_pictures
from lessismore_transforms.classification.labels import labelled_pictures
from lessismore_transforms.classification.leakage import check_leakage
from lessismore_transforms.classification.protocol import (
    CORRELATION,
    divided,
    grouped_by_near_duplicates,
    unit_of,
    with_folds,
    with_official,
)
from lessismore_transforms.classification.splits import split_fold
from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.near_duplicates import near_duplicates
from lessismore_transforms.volumes.pictures import with_channels


def blank(example: Example, channels: int) -> np.ndarray:
    del channels
    value = int.from_bytes(example.image_id.encode()[-3:], "big") % 251
    return np.full((60, 60), value, np.uint8)


def made(*examples: tuple[str, int, str, str, str]) -> Listing:
    """A listing of (image_id, label, split, patient, source)."""
    classes = tuple("abc"[: max(each[1] for each in examples) + 1])
    return Listing("Own", classes, tuple(Example(*each) for each in examples), blank)


def units(listing: Listing) -> dict[str, set[str]]:
    found = defaultdict(set)
    for example in listing.examples:
        found[unit_of(example)].add(example.split)
    return found


def many(count: int = 60) -> Listing:
    """Pictures in pairs of a patient, in threes of a source that is also named as a patient is, and alone."""
    kinds = [(f"p{n // 2}", "s0") if n < 20 else ("", f"p{n // 3}") if n < 50 else ("", "") for n in range(count)]
    return made(*((f"{n}.png", n % 2, "", *kind) for n, kind in enumerate(kinds)))


def test_patients_then_sources_stay_in_one_split() -> None:
    listing = many()
    tested = Counter()
    for fold in range(5):
        found = with_folds(listing, fold=fold, seed=3)
        assert {len(splits) for splits in units(found).values()} == {1}
        tested.update(e.image_id for e in found.examples if e.split == "test")
        assert [(e.image_id, e.label, e.patient, e.source) for e in found.examples] == [
            (e.image_id, e.label, e.patient, e.source) for e in listing.examples
        ]
    assert tested == {example.image_id: 1 for example in listing.examples}
    assert len(units(listing)) == 10 + 11 + 10  # s0 of known patients is no unit; a patient is no source of equal name


def test_folds_are_those_of_the_splits() -> None:
    listing = many()
    groups = [unit_of(example) for example in listing.examples]
    labels = [listing.classes[example.label] for example in listing.examples]
    expected = split_fold(labels, groups, fold=1, folds=4, validation=0.2, seed=7)
    assert [e.split for e in with_folds(listing, fold=1, folds=4, validation=0.2, seed=7).examples] == expected


def test_pictures_one_by_one() -> None:
    """Every class is spread to within one picture, whoever they are of."""
    for fold in range(5):
        found = with_folds(many(), fold=fold, grouped=False)
        counts = Counter((e.split, e.label) for e in found.examples)
        assert {counts["test", label] for label in (0, 1)} == {6}
        assert any(len(splits) > 1 for splits in units(found).values())
    cut = with_official(official(val=""), validation=0.25, grouped=False)
    assert any(splits == {"train", "val"} for splits in units(cut).values())


def official(val: str = "val") -> Listing:
    names = {"train": 40, val: 10, "test": 10}
    return made(
        *(
            (f"{split}/{n}.png", n % 2, split, f"{split} {n // 2}", "")
            for split, count in names.items()
            if split
            for n in range(count)
        )
    )


def test_an_official_split_stays_and_a_missing_val_is_cut_out_of_train() -> None:
    whole = official()
    assert with_official(whole).examples == whole.examples
    cut = with_official(official(val=""), validation=0.25, seed=1)
    assert {len(splits) for splits in units(cut).values()} == {1}
    counts = Counter((e.split, e.label) for e in cut.examples)
    assert counts == {(s, label): n for s, n in (("train", 15), ("val", 5), ("test", 5)) for label in (0, 1)}
    assert {e.image_id for e in cut.examples if e.split == "test"} == {f"test/{n}.png" for n in range(10)}
    assert with_official(official(val=""), seed=2).examples != with_official(official(val=""), seed=1).examples


def test_the_protocol_is_chosen_by_what_is_told() -> None:
    assert divided(official()).examples == official().examples
    assert divided(many(), fold=2).examples == with_folds(many(), fold=2).examples
    assert (
        divided(official(), protocol="folds", fold=2, seed=5).examples
        == with_folds(official(), fold=2, seed=5).examples
    )
    with pytest.raises(UserError, match="expected no fold for the official split of Own, found 2: leave it out"):
        divided(official(), fold=2)
    with pytest.raises(UserError, match="expected no repeat for the official split of Own, found 1: leave it out"):
        divided(official(), repeat=1)
    assert divided(many(), repeat=1).examples == with_folds(many()).examples  # the seed tells it
    for val in ("val", ""):
        assert divided(official(val=val)).official
        assert not divided(divided(official(val=val)), protocol="folds").official
    with pytest.raises(UserError, match="expected a protocol out of auto, official, folds, found 'random'"):
        divided(many(), protocol="random")


def test_what_is_no_official_split_is_refused() -> None:
    with pytest.raises(UserError, match="an official split with train and test, found without any 60: name them in"):
        divided(many(), protocol="official")
    only = made(*((f"{n}.png", n % 2, "train" if n < 3 else "val", "", "") for n in range(6)))
    with pytest.raises(UserError, match="with train and test, found train 3, val 3"):
        with_official(only)


def test_splits_that_would_lack_a_class_are_refused() -> None:
    few = made(*((f"{n}.png", n % 2 + (n == 0) * 2, "", f"p{n // 2}", "") for n in range(12)))
    with pytest.raises(UserError, match=r"at least 2 patients .* of the class c for 2 folds, found 1"):
        with_folds(few, folds=2)
    both = made(
        *((f"{n}.png", n % 2, "", f"p{n % 2}", "") for n in range(8)), ("x", 0, "", "q", ""), ("y", 1, "", "r", "")
    )
    with pytest.raises(UserError, match="fold 0 of 2: expected pictures of all classes in train, found none of a"):
        with_folds(both, folds=2)
    single = made(*((f"{n}.png", n % 2, "train", f"p{n % 2}", "") for n in range(8)), ("x", 0, "test", "", ""))
    with pytest.raises(UserError, match="training without validation: expected pictures of all classes in train"):
        with_official(single)


def test_a_patient_in_two_official_splits_is_the_leakage_gates() -> None:
    listing = official()
    twice = [
        Example(e.image_id, e.label, e.split, "same" if e.image_id[-5] == "1" else e.patient) for e in listing.examples
    ]
    examples = Examples.of(with_official(Listing("Own", listing.classes, tuple(twice), blank)))
    with pytest.raises(UserError, match=r"expected nothing in two places, found pairs \(patient 3"):
        check_leakage(examples, policy="fail")


def test_near_duplicates_become_a_source(caplog: pytest.LogCaptureFixture) -> None:
    random = np.random.default_rng(0)
    base = [np.kron(random.integers(0, 256, (8, 8)), np.ones((10, 10))).astype(np.uint8) for _ in range(5)]
    dots = np.where(np.arange(80) % 3, 0, 9).astype(np.uint8)
    copies = {"c": base[0][:, ::-1] // 2 + 20, "e": base[2] // 2 + dots, "i": base[4][:20, :20], "j": base[4][:20, :20]}
    pictures = {"a": base[0], "b": base[1], "d": base[2], "f": base[3], "g": base[0], "h": base[1], **copies}
    own = {"g": ("p", ""), "h": ("", "s")}
    examples = tuple(Example(name, n % 2, "", *own.get(name, ("", ""))) for n, name in enumerate(pictures))
    listing = Listing("Own", ("x", "y"), examples, lambda example, channels: pictures[example.image_id])
    with caplog.at_level(logging.INFO):
        found = grouped_by_near_duplicates(listing)
    sources = {example.image_id: example.source for example in found.examples}
    assert sources == {"a": "a", "b": "", "c": "a", "d": "d", "e": "d", "f": "", "g": "", "h": "s", "i": "i", "j": "i"}
    assert caplog.messages[0] == (
        "Own: patients are not known of 8 pictures; 3 groups of near-duplicates (correlation 0.65 or more) with 6 of "
        "them, the largest with 2, stay together; that is more than a fold: raise the correlation, or let each "
        "picture count as its own where different people look alike"
    )
    assert [e.patient for e in found.examples] == [e.patient for e in examples]


@pytest.mark.parametrize("correlation", [0, 1.2, "much"])
def test_a_correlation_that_is_none(correlation: Any) -> None:
    """It is refused before a picture is read, and the sentence names the default."""
    listing = replace(many(), read=lambda example, channels: pytest.fail("read"))
    with pytest.raises(UserError, match=rf"above 0 and at most 1 .*, found {correlation!r}; {CORRELATION} is usual"):
        grouped_by_near_duplicates(listing, correlation=correlation)


def test_pictures_that_need_three_channels_are_read_in_three(caplog: pytest.LogCaptureFixture) -> None:
    """As three windows of DICOM do; they are grouped as their grey pictures are."""
    random = np.random.default_rng(1)
    base = [np.kron(random.integers(0, 256, (8, 8, 3)), np.ones((10, 10, 1))).astype(np.uint8) for _ in range(3)]
    pictures = {"a": base[0], "b": base[1], "c": base[0][:, ::-1], "d": base[2], "e": base[2]}

    def read(example: Example, channels: int) -> np.ndarray:
        if channels != 3:
            raise UserError("give --channels 3")
        return pictures[example.image_id]

    listing = Listing("Own", ("x", "y"), tuple(Example(name, n % 2, "") for n, name in enumerate(pictures)), read)
    found = grouped_by_near_duplicates(listing, channels=3)
    grey = replace(listing, read=lambda example, _: with_channels(pictures[example.image_id], 1))
    assert [e.source for e in found.examples] == ["a", "", "a", "d", "d"]
    assert grouped_by_near_duplicates(grey).examples == found.examples
    assert len(caplog.records) == 2
    with pytest.raises(UserError, match="give --channels 3"):
        grouped_by_near_duplicates(listing)


def test_a_set_of_patients_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    listing = made(*((f"{n}", n % 2, "", f"p{n}", "") for n in range(4)))
    assert grouped_by_near_duplicates(listing) is listing
    assert not caplog.records


def test_groups_are_the_connected_components(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    links = random.integers(0, 40, (26, 2))
    one_way = random.integers(0, 40, (30, 2))  # found from one side, which does not count
    both_ways = np.concatenate([links, links[:, ::-1], one_way[one_way[:, 0] < one_way[:, 1]]])
    pairs = pd.DataFrame(both_ways.astype(str), columns=["image_a", "image_b"])
    monkeypatch.setattr(protocol, "near_duplicates", lambda *_, **__: pairs)
    listing = made(*((f"{n}", n % 2, "", "", "") for n in range(40)))
    listing = replace(listing, read=lambda example, _: np.full((60, 60), int(example.image_id), np.uint8))
    graph = coo_array((np.ones(26), links.T), (40, 40))
    _, component = connected_components(graph, directed=False)
    first = [int(np.flatnonzero(component == each)[0]) for each in component]
    alone = np.bincount(component)[component] == 1
    expected = ["" if lonely else str(name) for name, lonely in zip(first, alone, strict=True)]
    assert [e.source for e in grouped_by_near_duplicates(listing).examples] == expected
    assert len(set(expected)) > 4


def iq_othnccd(real_data: Path) -> Listing:
    if not (real_data / "iq_othnccd").is_dir():
        pytest.skip("no IQ-OTH/NCCD among the real images")
    return labelled_pictures(real_data / "iq_othnccd")


def test_real_pictures_without_patients(real_data: Path) -> None:
    """Every ninth picture of IQ-OTH/NCCD."""
    whole = iq_othnccd(real_data)
    assert Counter(whole.classes[e.label] for e in whole.examples) == {
        "Bengin cases": 120, "Malignant cases": 561, "Normal cases": 416,
    }  # fmt: skip
    grouped = grouped_by_near_duplicates(replace(whole, examples=whole.examples[::9]))
    sizes = Counter(e.source for e in grouped.examples if e.source)
    assert 10 <= sum(sizes.values()) < 122
    assert max(sizes.values()) <= 12
    classes = {(e.source, e.label) for e in grouped.examples if e.source}
    assert len(classes) == len(sizes)  # nobody has two diagnoses
    assert {len(splits) for splits in units(with_folds(grouped, folds=3)).values()} == {1}


@pytest.mark.slow
def test_below_the_default_people_are_chained(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of `grouped_by_near_duplicates`."""
    whole = iq_othnccd(real_data)
    named = [(e.image_id, picture) for e, picture in zip(whole.examples, read_pictures(whole), strict=True)]
    pairs = near_duplicates(named, named, correlation=0.55)
    both = pairs.merge(pairs, left_on=["image_a", "image_b"], right_on=["image_b", "image_a"])
    both = both[both["image_a_x"] < both["image_b_x"]]
    score = both[["correlation_x", "correlation_y"]].min(axis=1)
    kind = [both[f"image_{x}_x"].str.split("/").str[0] for x in "ab"]
    number = [both[f"image_{x}_x"].str.extract(r"\((\d+)\)")[0].astype(int) for x in "ab"]
    table = {}
    for low, high in ((0.7, 2), (0.65, 0.7), (0.6, 0.65), (0.55, 0.6)):
        cached = pairs[pairs["correlation"] >= low]
        monkeypatch.setattr(protocol, "near_duplicates", lambda *_, cached=cached, **__: cached)
        sizes = Counter(unit_of(e) for e in grouped_by_near_duplicates(whole, correlation=low).examples)
        here = (score >= low) & (score < high)
        one_class = round(100 * (kind[0] == kind[1])[here].mean())
        distance = (number[0] - number[1]).abs()[here].median()
        table[low] = (int(here.sum()), one_class, distance, len(sizes), max(sizes.values()))
        print(low, *table[low])
    assert table == {
        0.7: (1810, 100, 2, 388, 33),
        0.65: (851, 99, 5, 263, 38),
        0.6: (1562, 93, 7, 136, 187),
        0.55: (3151, 74, 64, 72, 557),
    }
