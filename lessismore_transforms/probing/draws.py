"""Which pictures are learned from and which are judged: folds, repeated, and few labels; the same for all networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.classification.splits import stratified_folds

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Draw:
    """One fold of one repeat.

    Args:
        repeat: number of the repeat.
        fold: number of the fold in it; None of an official split.
        train: (N,) numbers of the pictures to learn from.
        test: (M,) numbers of the pictures to be judged.
    """

    repeat: int
    fold: int | None
    train: Integers
    test: Integers


def draw_folds(labels: Integers, groups: Sequence[str], *, folds: int, repeats: int, seed: int) -> list[Draw]:
    """Each fold of each repeat, stratified, with no group in two folds.

    Args:
        labels: (N,) class of each picture.
        groups: N names of what stays together.
        folds: number of folds.
        repeats: how often the pictures are dealt to folds, each time anew.
        seed: of all repeats; those of another seed are others.

    Raises:
        UserError: a class has fewer groups than folds.
    """
    found = []
    for repeat in range(repeats):
        dealt = stratified_folds(labels.tolist(), groups, folds, 1000 * seed + repeat)
        found += [
            Draw(repeat, fold, np.flatnonzero(dealt != fold), np.flatnonzero(dealt == fold)) for fold in range(folds)
        ]
    return found


def draw_official(splits: Sequence[str], *, repeats: int) -> list[Draw]:
    """The official split, train and val together to learn from; repeats differ in the few labels that are drawn."""
    test = np.array([split == "test" for split in splits])
    return [Draw(repeat, None, np.flatnonzero(~test), np.flatnonzero(test)) for repeat in range(repeats)]


def draw_labels(labels: Integers, groups: Sequence[str], fractions: Sequence[float], *, seed: int) -> NDArray[np.bool_]:
    """Whose labels are known, (N, fractions), where only those of a fraction of the groups of each class are.

    Of each class that many groups are drawn, rounded half up and one at least. A smaller fraction is part of a larger
    one. A group of several classes counts for the one that most of its pictures have.

    Args:
        labels: (N,) class of each picture.
        groups: N names of what stays together.
        fractions: above 0, up to 1.
        seed: of the draw.
    """
    _, places = np.unique(np.asarray(groups), return_index=True)
    names = [
        groups[place] for place in sorted(places.tolist())
    ]  # by first appearance, as names may be hashes with a key
    numbers = {name: number for number, name in enumerate(names)}
    members = np.array([numbers[name] for name in groups])  # (N,)
    counts = np.zeros((len(names), int(labels.max()) + 1), np.int64)
    np.add.at(counts, (members, labels), 1)
    mostly = counts.argmax(axis=1)  # (groups,)
    known = np.zeros((len(names), len(fractions)), bool)
    rng = np.random.default_rng(seed)
    for label in np.unique(labels):
        of_class = rng.permutation(np.flatnonzero(mostly == label))
        if not len(of_class):  # all its pictures are in groups of other classes
            of_class = rng.permutation(np.flatnonzero(counts[:, label]))
        for column, fraction in enumerate(fractions):
            known[of_class[: max(1, int(len(of_class) * fraction + 0.5))], column] = True
    of_pictures: NDArray[np.bool_] = known[members]
    return of_pictures
