"""The penalty of a logistic regression, chosen inside the pictures that it is fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.classification.logistic_probe import PENALTIES
from lessismore_transforms.classification.metrics import nll
from lessismore_transforms.classification.splits import stratified_folds
from lessismore_transforms.probing.logistic import Floats, Integers, fit
from lessismore_transforms.probing.settings import INNER_FOLDS

# Where a class has one group, so that nothing can be chosen: as large as usual numbers of features.
UNKNOWN_PENALTY = 1000.0
# Tolerance and steps of the search; the chosen regression is fitted to the usual ones. Where features hardly differ in
# many directions, the weakest penalties would take thousands of steps, and are not chosen.
_SEARCH, _SEARCH_STEPS = 1e-2, 300


@dataclass(frozen=True, eq=False)
class Choice:
    """A penalty, and how it was chosen.

    Args:
        penalty: the one that is taken.
        losses: (P,) mean of -log p(label) of pictures that were not fitted to, for each penalty; nan where there was
            no choice.
        folds: inner folds; 0 where there was no choice.
    """

    penalty: float
    losses: Floats
    folds: int


def choose_penalties(
    coordinates: Floats,
    labels: Integers,
    groups: Sequence[str],
    classes: int,
    *,
    known: NDArray[np.bool_],
    folds: int = INNER_FOLDS,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
) -> list[Choice]:
    """The penalty of D regressions: that with the smallest loss over inner folds, the strongest of equal ones.

    A group is in one inner fold only. A class with fewer groups than inner folds has as many folds as groups.

    Args:
        coordinates: (N, R), see `logistic.Basis`.
        labels: (N,) classes.
        groups: N names of what stays together.
        classes: number of classes.
        known: (N, D), the pictures that each regression is fitted to.
        folds: the most inner folds.
        penalties: the grid, the strongest first.
        seed: of the inner folds.
    """
    inner = [_inner_folds(labels, groups, each, folds, seed) for each in known.T]
    columns = [(d, fold) for d, dealt in enumerate(inner) if dealt is not None for fold in range(dealt.max() + 1)]
    losses = np.full((len(inner), len(penalties)), np.nan)
    if columns:
        fitted = np.stack([inner[d] != fold for d, fold in columns], axis=1)
        fitted &= known[:, [d for d, _ in columns]]
        grid = np.tile(np.asarray(penalties), len(columns))
        members = np.repeat(fitted, len(penalties), axis=1)
        found = fit(
            coordinates, labels, classes, members=members, penalties=grid, tolerance=_SEARCH, steps=_SEARCH_STEPS
        )
        p = found.probabilities(coordinates).reshape(len(labels), len(columns), len(penalties), classes)
        for d in {d for d, _ in columns}:
            judged = np.full((len(labels), len(penalties), classes), np.nan)
            for column, (of, fold) in enumerate(columns):
                if of == d:
                    rows = known[:, d] & (inner[d] == fold)
                    judged[rows] = p[rows, column]
            rows = known[:, d]
            losses[d] = [nll(labels[rows], judged[rows, place]) for place in range(len(penalties))]
    return [
        Choice(UNKNOWN_PENALTY, each, 0)
        if dealt is None
        else Choice(float(penalties[int(each.argmin())]), each, int(dealt.max()) + 1)
        for dealt, each in zip(inner, losses, strict=True)
    ]


def _inner_folds(
    labels: Integers, groups: Sequence[str], known: NDArray[np.bool_], folds: int, seed: int
) -> Integers | None:
    """The inner fold of each picture (N,), -1 of one whose label is not known; None where a class has one group."""
    rows = np.flatnonzero(known).tolist()
    own = [groups[row] for row in rows]
    pairs = set(zip(labels[rows].tolist(), own, strict=True))
    fewest = min(sum(label == each for label, _ in pairs) for each in {label for label, _ in pairs})
    if fewest < 2:
        return None
    dealt = np.full(len(labels), -1)
    dealt[rows] = stratified_folds(labels[rows].tolist(), own, min(folds, fewest), seed)
    return dealt
