"""Stratified folds that keep the pictures of a patient together.

Groups (patients) are dealt to the parts, large groups first, each to the part that lacks most of its classes. Where
each group is one picture, every part gets its share of each class to within one picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.errors import UserError
from lessismore_transforms.wording import counted

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def stratified_folds(labels: Sequence[Any], groups: Sequence[str], folds: int, seed: int = 0) -> Integers:
    """The fold of each example, int64 (N,), such that no group is in two folds and classes are spread evenly.

    The same order of examples and the same seed give the same folds; the names of the groups do not matter.

    Args:
        labels: the class of each of N examples, numbers or names.
        groups: the group of each example, such as its patient, which stays together; an example without others has a
            name of its own.
        folds: number of folds, at least 2.
        seed: of the order in which equally large groups are dealt.

    Raises:
        UserError: there are fewer than 2 folds, or a class has fewer groups than folds.
    """
    if folds < 2:
        raise UserError(f"expected at least 2 folds, found {folds}: 5 are usual")
    classes, counts, members = _count(labels, groups)
    for name, several in zip(classes, np.count_nonzero(counts, axis=0), strict=True):
        if several < folds:
            raise UserError(
                f"expected at least {counted(folds, 'patient')} (or sources, or single pictures) of the class {name} "
                f"for {counted(folds, 'fold')}, found {several}: take fewer folds or add pictures"
            )
    ideal = np.tile(counts.sum(axis=0) / folds, (folds, 1))
    return _deal(counts, ideal, seed)[members]


def split_fold(
    labels: Sequence[Any],
    groups: Sequence[str],
    *,
    fold: int,
    folds: int = 5,
    validation: float = 0.1,
    seed: int = 0,
) -> list[str]:
    """The split of each example: one fold is test, the rest is split into train and val, likewise stratified.

    Wolf et al. 2024, Section 2.3: five folds, the rest 90/10. A class has at least about one group in val.

    Args:
        labels: the class of each of N examples, numbers or names.
        groups: what must stay together, as `stratified_folds` takes it.
        fold: number of the fold that is test, from 0.
        folds: number of folds.
        validation: the share of val in the examples that are not test, between 0 and 1.
        seed: of folds and of val; the test sets of all folds of one seed partition the data.

    Raises:
        UserError: a number is out of its range, or a class has fewer groups than folds.
    """
    if not 0 <= fold < folds:
        raise UserError(f"expected a fold from 0 to {folds - 1} of {folds}, found {fold}: count from 0")
    test = stratified_folds(labels, groups, folds, seed) == fold
    rest = np.flatnonzero(~test).tolist()
    splits = np.full(len(test), "test", dtype="<U5")
    splits[rest] = cut_validation([labels[i] for i in rest], [groups[i] for i in rest], share=validation, seed=seed)
    names: list[str] = splits.tolist()
    return names


def cut_validation(labels: Sequence[Any], groups: Sequence[str], *, share: float = 0.1, seed: int = 0) -> list[str]:
    """The split of each example of a training set, train or val; stratified, and no group is in both.

    Args:
        labels: the class of each of N examples, numbers or names.
        groups: what must stay together, as `stratified_folds` takes it.
        share: of val, between 0 and 1; a class has at least about one group there, its only one if need be.
        seed: of the order in which equally large groups are dealt.

    Raises:
        UserError: the share is out of its range.
    """
    if not 0 < share < 1:
        raise UserError(f"expected a validation share between 0 and 1, found {share}: 0.1 is usual")
    _, counts, members = _count(labels, groups)
    total = counts.sum(axis=0)
    val = np.maximum(share * total, total / np.count_nonzero(counts, axis=0))  # one group at least
    parts = _deal(counts, np.stack([total - val, val]), seed)[members]
    names: list[str] = np.array(["train", "val"])[parts].tolist()
    return names


def _count(labels: Sequence[Any], groups: Sequence[str]) -> tuple[list[Any], Integers, Integers]:
    """The classes (C,), the number of examples of each group and class (G, C), and the group of each example (N,)."""
    classes, targets = np.unique(np.asarray(labels), return_inverse=True)
    numbers: dict[str, int] = {}  # by first appearance, as names may be hashes with a key of the user
    members = np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.int64)
    counts = np.zeros((len(numbers), len(classes)), np.int64)
    np.add.at(counts, (members, targets), 1)
    return classes.tolist(), counts, members


def _deal(counts: Integers, ideal: Floats, seed: int) -> Integers:
    """The part (G,) of each group, from the class counts of the groups (G, C) and those wanted for the parts (P, C).

    A group goes to the part where it reduces the squared distance to the wanted counts most; each class is weighted by
    one over its size.
    """
    shuffled = np.random.RandomState(seed).permutation(len(counts))  # of all generators, its numbers never change
    order = shuffled[np.argsort(-counts[shuffled].sum(axis=1), kind="stable")]
    weights = 1 / counts.sum(axis=0)
    lacking = ideal.copy()  # (P, C)
    parts = np.empty(len(counts), np.int64)
    for group in order:
        need = np.round((lacking * weights * counts[group]).sum(axis=1), 9)  # (P,), rounded so that ties are ties
        part = np.lexsort((np.round(-lacking.sum(axis=1), 9), -need))[0]
        parts[group] = part
        lacking[part] -= counts[group]
    return parts
