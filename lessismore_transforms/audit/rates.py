"""How often a neighbour is closer than the view: rates with intervals by patient, and what they are between.

A collision is, with the distances of `measure`,

    whole, aligned   [d(x, n) <= d(x, t2(x))]          1 for an exact copy n = x
    loss             [d < d'] + [d = d'] / 2           1/2 in the mean for an exact copy: t2(n) and t2(x) are then
                                                       two draws of the same, and either is as likely the closer one

Its mean over slices is the rate r. What a measure takes for close at all tells the rate of another patient's slices,
r0. So the likeness

    (r - r0) / (c - r0),   c = 1, or 1/2 of the loss,

is 0 where a neighbour is no closer than a slice of another patient, and 1 where it is as close as an exact copy. In the
loss it can be above 1: views of a slice that is close to all can be closer than the own one more than half the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.analysis.group_intervals import Estimate, jackknife, mean_by_groups
from lessismore_transforms.audit.measure import LOSS, Distances

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_TIE = 1e-6  # of 1 - SSIM and 1 - cosine: less is rounding
LEAST_ROOM = 0.05  # of c - r0, below which a measure tells nothing


@dataclass(frozen=True)
class Rate:
    """How often neighbours of one kind are closer than the view.

    Args:
        comparison: `whole`, `aligned` or `loss`.
        measure: `hash`, `ssim` or the name of an encoder.
        neighbour: kind of the neighbour.
        rate: with its interval.
        likeness: with its interval; nan where another patient's slices are as close.
        slices: how many have such a neighbour.
    """

    comparison: str
    measure: str
    neighbour: str
    rate: Estimate
    likeness: Estimate
    slices: int


def collisions(distances: Distances) -> Floats:
    """1, 1/2 or 0 for each slice and neighbour, (n, K), see above; nan where there is none."""
    return as_collisions(distances.others - distances.own[:, None], distances.comparison)


def as_collisions(gap: Floats, comparison: str) -> Floats:
    """1, 1/2 or 0 by how much farther a neighbour is than the view; nan stays."""
    tie = 0.5 if comparison == LOSS else 1.0
    found: Floats = np.where(np.isnan(gap), np.nan, np.where(np.abs(gap) <= _TIE, tie, gap < 0))
    return found


def ceiling(comparison: str) -> float:
    """The rate of exact copies."""
    return 0.5 if comparison == LOSS else 1.0


def rates(distances: Distances, kinds: tuple[str, ...], patients: NDArray[np.generic]) -> list[Rate]:
    """The rate of each kind of neighbour that some slices have; the last kind is another patient's slice.

    Args:
        distances: of n slices to K kinds of neighbours.
        kinds: K names.
        patients: (n,), of the slices.
    """
    found = collisions(distances)
    top = ceiling(distances.comparison)
    result = []
    for column, kind in enumerate(kinds):
        own = found[:, column]
        if np.isnan(own).all():
            continue
        rate = mean_by_groups(own, patients, bounds=(0, 1))
        near = Estimate(math.nan, math.nan, math.nan, 0)
        if column < len(kinds) - 1:
            near = _likeness(own, found[:, -1], top, patients)
        result.append(Rate(distances.comparison, distances.measure, kind, rate, near, int((~np.isnan(own)).sum())))
    return result


def _likeness(own: Floats, control: Floats, top: float, patients: NDArray[np.generic]) -> Estimate:
    """The likeness of slices (n,) with neighbours; all of them tell what another patient's slices are like."""
    used = ~np.isnan(control)
    if not used.any() or top - control[used].mean() < LEAST_ROOM:
        return Estimate(math.nan, math.nan, math.nan, 0)

    def of(rows: Ints) -> float:
        near, base = own[rows], control[rows]
        near, base = near[~np.isnan(near)], base[~np.isnan(base)]
        if not near.size or not base.size or top - base.mean() < LEAST_ROOM:
            return math.nan
        return float((near.mean() - base.mean()) / (top - base.mean()))

    return jackknife(of, patients)
