"""Stratified folds of whole patients."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from lessismore_transforms.classification.splits import split_fold, stratified_folds


@st.composite
def data(draw) -> tuple[list[int], list[str], int]:
    """Labels and groups of several pictures, with enough groups of each class for the folds."""
    folds = draw(st.integers(2, 5))
    classes = draw(st.integers(2, 4))
    labels, groups = [], []
    for label in range(classes):
        for number in range(draw(st.integers(folds, 12))):
            size = draw(st.integers(1, 6))
            labels += [label] * size
            groups += [f"{label}-{number}"] * size
    order = draw(st.permutations(range(len(labels))))
    return [labels[i] for i in order], [groups[i] for i in order], folds


@settings(max_examples=60, deadline=None)
@given(data(), st.integers(0, 2**32 - 1))
def test_folds_partition_groups_and_hold_every_class(drawn, seed):
    labels, groups, folds = drawn
    found = stratified_folds(labels, groups, folds, seed)
    assert found.shape == (len(labels),)
    assert len(set(zip(groups, found.tolist(), strict=True))) == len(set(groups))  # no group in two folds
    for fold in range(folds):
        assert set(np.array(labels)[found == fold]) == set(labels)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(2, 5), st.integers(0, 99))
def test_single_pictures_are_within_one_of_the_ideal(labels, folds, seed):
    labels = labels + [label for label in set(labels) for _ in range(folds)]
    found = stratified_folds(labels, list(map(str, range(len(labels)))), folds, seed)
    for label, total in Counter(labels).items():
        shares = np.bincount(found[np.array(labels) == label], minlength=folds)
        assert np.abs(shares - total / folds).max() < 1
    assert np.ptp(np.bincount(found, minlength=folds)) <= len(set(labels))


def test_folds_are_as_even_as_those_of_scikit_learn():
    random = np.random.default_rng(0)
    ours, theirs = [], []
    for trial in range(20):
        of_group = random.integers(0, 3, 60)
        members = np.repeat(np.arange(60), random.integers(1, 30, 60))
        labels = of_group[members]
        folds = stratified_folds(labels.tolist(), members.astype(str).tolist(), 5, trial)
        ours.append(unevenness(labels, folds))
        split = StratifiedGroupKFold(5, shuffle=True, random_state=trial).split(labels, labels, members)
        folds = np.empty(len(labels), int)
        for number, (_, test) in enumerate(split):
            folds[test] = number
        theirs.append(unevenness(labels, folds))
    assert np.mean(ours) <= np.mean(theirs)


def unevenness(labels: np.ndarray, folds: np.ndarray) -> float:
    table = np.zeros((labels.max() + 1, folds.max() + 1))
    np.add.at(table, (labels, folds), 1)
    return float((table / table.sum(axis=1, keepdims=True)).std(axis=1).mean())


def test_names_of_groups_do_not_matter_but_seeds_do():
    labels = [0, 1] * 20
    groups = [f"p{i // 4}" if i % 4 < 3 else f"q{i}" for i in range(40)]
    renamed = [f"{hash(group)}" for group in groups]  # as patients hashed with another key
    folds = stratified_folds(labels, groups, 4, 1)
    np.testing.assert_array_equal(folds, stratified_folds(labels, renamed, 4, 1))
    named = [("a", "b")[label] for label in labels]
    np.testing.assert_array_equal(folds, stratified_folds(named, groups, 4, 1))
    assert any((folds != stratified_folds(labels, groups, 4, seed)).any() for seed in (2, 3))


@settings(max_examples=40, deadline=None)
@given(data(), st.integers(0, 99))
def test_test_splits_of_all_folds_partition_the_data(drawn, seed):
    labels, groups, folds = drawn
    tested = Counter()
    for fold in range(folds):
        splits = split_fold(labels, groups, fold=fold, folds=folds, seed=seed)
        tested.update(i for i, split in enumerate(splits) if split == "test")
        assert len(set(zip(groups, splits, strict=True))) == len(set(groups))
        assert {split for split, label in zip(splits, labels, strict=True) if label == 0} >= {"test", "val"}
    assert tested == Counter(range(len(labels)))


def test_the_papers_split_of_200():
    """Wolf et al. 2024, Section 2.3: 100 and 100 patients, five folds, the rest 90/10."""
    labels = [1] * 100 + [0] * 100  # sorted, as the public head CT set is
    for fold in range(5):
        splits = split_fold(labels, list(map(str, range(200))), fold=fold)
        assert Counter(zip(splits, labels, strict=True)) == {
            ("train", 0): 72, ("train", 1): 72, ("val", 0): 8, ("val", 1): 8, ("test", 0): 20, ("test", 1): 20,
        }  # fmt: skip


def test_few_patients_still_give_all_three_splits_both_classes():
    labels = [0] * 50 + [1] * 50
    groups = [f"p{i // 10}" for i in range(100)]  # five patients of ten slices in each class
    for fold in range(5):
        splits = split_fold(labels, groups, fold=fold)
        assert Counter(zip(splits, labels, strict=True)) == {
            ("train", 0): 30, ("train", 1): 30, ("val", 0): 10, ("val", 1): 10, ("test", 0): 10, ("test", 1): 10,
        }  # fmt: skip


def test_known_folds_stay_as_they_are():
    """Published folds must not change with a version; written down from the first one."""
    found = stratified_folds([0, 1] * 5, list("aabbccddee"), 5, 0)
    np.testing.assert_array_equal(found, [1, 1, 2, 2, 0, 0, 3, 3, 4, 4])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"fold": 5}, "expected a fold from 0 to 4 of 5, found 5"),
        ({"fold": -1}, "expected a fold from 0 to 4 of 5, found -1"),
        ({"fold": 0, "folds": 1}, "expected at least 2 folds, found 1"),
        ({"fold": 0, "validation": 0.0}, "between 0 and 1, found 0.0"),
        ({"fold": 0, "folds": 6}, "at least 6 patients .* of the class with for 6 folds, found 5"),
    ],
)
def test_refused_settings(arguments, sentence):
    labels = ["with"] * 20 + ["without"] * 20
    groups = [f"a{i % 5}" for i in range(20)] + [f"b{i}" for i in range(20)]
    with pytest.raises(ValueError, match=sentence):
        split_fold(labels, groups, **arguments)
