"""Which slices of a volume to keep: every n-th, the paper's pair rule, or the released scripts' exemplars.

Wolf et al. 2024 (doi 10.1016/j.compbiomed.2024.109242), Sections 2.1 and 3.3. Distances are what the measure gives
(bits for HASH); with `similarity=True` larger means more alike (SSIM, NMI, cosine).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.compiled import compiled

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


_ROUNDING_MM = 2e-3  # tables hold positions to a thousandth of a mm


@dataclass(frozen=True, eq=False)
class Ranking:
    """The order in which the pair rule removes the n slices of a volume.

    Args:
        removed_at: float64 (n,), the distance (or similarity) at which a slice fell; NaN for the survivor.
        removed_by: int64 (n,), the slice that it was too similar to; -1 for the survivor.
        rank: int64 (n,), 1 for the survivor to n for the slice removed first.
    """

    removed_at: Scores
    removed_by: Indices
    rank: Indices


@dataclass(frozen=True, eq=False)
class Exemplars:
    """The slices that stand for the others of a volume.

    Args:
        kept: bool (n,).
        kept_by: int64 (n,), the exemplar that stands for a slice; itself for an exemplar.
        distance: float64 (n,), from the exemplar; for an exemplar 0, or NaN where the measure is a similarity.
    """

    kept: Mask
    kept_by: Indices
    distance: Scores


def removal_order(distances: npt.NDArray[Any], *, similarity: bool = False) -> Ranking:
    """Rank the slices of a volume by the paper's pair rule (Section 2.1), down to one survivor.

    The rule: sort all pairs (i, j), i < j, most similar first, ties by (i, j); where both slices are still there, the
    later one goes. So whether a slice goes depends on earlier slices alone, and no sorting of pairs is needed: slice
    j falls at its closest pair (i, j) among those reached before slice i itself falls. O(n^2) time, O(n) memory.
    The first slice survives.

    Args:
        distances: (n, n), symmetric, finite, integers or floats, in the measure's unit; read below the diagonal only.
        similarity: larger values are more similar.

    Raises:
        UserError: the matrix is not square, or not finite.
    """
    n = len(distances)
    if distances.shape != (n, n):
        raise UserError(f"expected distances (n, n), found {distances.shape}; give all pairs of one volume")
    if n and not (math.isfinite(distances.min()) and math.isfinite(distances.max())):
        raise UserError("expected finite distances, found NaN or infinity; check the features of this volume")
    sign = -1.0 if similarity else 1.0
    removed_at = np.full(n, np.inf)
    removed_by = np.full(n, -1, np.int64)
    _find_removers(np.ascontiguousarray(distances), sign, removed_at, removed_by)
    order = np.lexsort((removed_by, removed_at))  # equal pairs of both: by index, because the sort is stable
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n, 0, -1)
    return Ranking(np.where(removed_by < 0, np.nan, sign * removed_at), removed_by, rank)


def keep_at_threshold(ranking: Ranking, threshold: float, *, similarity: bool = False) -> Mask:
    """Which slices (n,) the pair rule leaves: those not removed at a distance <= threshold (similarity >=).

    Args:
        ranking: of one volume, from the same measure.
        threshold: in the measure's unit.
        similarity: larger values are more similar.
    """
    removed = ranking.removed_at >= threshold if similarity else ranking.removed_at <= threshold
    return ~removed  # NaN, the survivor, compares as False


def keep_count(ranking: Ranking, count: int) -> Mask:
    """The slices (n,) that the pair rule leaves when it stops at `count` of them (all, if there are fewer).

    Raises:
        UserError: the count is below 1.
    """
    if count < 1:
        raise UserError(f"expected at least 1 slice to keep, found {count}; the pair rule never removes the last one")
    return ranking.rank <= count


def target_count(n: int, fraction: float) -> int:
    """How many of n slices a fraction keeps: rounded half up as written in decimals, at least 1.

    Raises:
        UserError: the fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise UserError(f"expected a fraction above 0 and at most 1, found {fraction}; give 0.1 to keep 10 %")
    exact = n * Decimal(repr(float(fraction)))  # 10 * 0.15 is 1.5, not the 1.49999... of binary floats
    return max(1, int(exact.to_integral_value(ROUND_HALF_UP)))


def exemplars(
    distances_from: Callable[[int], npt.NDArray[Any]],
    n: int,
    threshold: float,
    *,
    order: npt.ArrayLike | None = None,
    similarity: bool = False,
) -> Exemplars:
    """Keep each slice that no earlier kept one is close to, as the released hash scripts do.

    Kept pairs lie beyond the threshold; which slice of a group survives depends on the order, and a larger threshold
    need not keep a subset.

    Args:
        distances_from: gives the distances (n,) of one slice to all, in the measure's unit; asked for kept slices only.
        n: number of slices.
        threshold: a slice goes at a distance <= this (similarity >=).
        order: order of the walk, a permutation of 0..n-1; by default 0..n-1.
        similarity: larger values are more similar.

    Raises:
        UserError: the order is not a permutation of 0..n-1.
    """
    walk = np.arange(n) if order is None else np.asarray(order, np.int64)
    if not np.array_equal(np.sort(walk), np.arange(n)):
        raise UserError(f"expected an order that names each of 0..{n - 1} once, found {walk.tolist()}")
    kept_by = np.full(n, -1, np.int64)
    distance = np.full(n, np.nan)
    for index in walk:
        if kept_by[index] >= 0:
            continue
        row = distances_from(int(index))
        near = row >= threshold if similarity else row <= threshold
        near &= kept_by < 0
        kept_by[near] = index
        distance[near] = row[near]
        kept_by[index] = index
        distance[index] = np.nan if similarity else 0
    return Exemplars(kept_by == np.arange(n), kept_by, distance)


def exemplar_walk(candidate: Mask, order: Indices | None = None) -> Indices:
    """The slices that can be kept, in the order in which the exemplar rule walks through a volume.

    Args:
        candidate: bool (n,), the slices that can be kept.
        order: (n,) of all slices; by default that of their indices.
    """
    walk = np.arange(len(candidate)) if order is None else order
    return walk[candidate[walk]]


def every_nth(n: int, step: int, *, offset: int = 0) -> Mask:
    """The mask (n,) of every step-th slice, the paper's EveryN (Section 2.1).

    Args:
        n: number of slices.
        step: 5 keeps 20 %, 10 keeps 10 %.
        offset: the first slice kept, in 0..step-1; the paper does not state it.

    Raises:
        UserError: the step is below 1, or the offset is not in 0..step-1.
    """
    if not 0 <= offset < step:
        raise UserError(f"expected a step of at least 1 and an offset in 0..step-1, found {step} and {offset}")
    kept: Mask = np.arange(n) % step == offset
    return kept


def every_mm(positions_mm: Scores, step_mm: float, *, offset_mm: float = 0.0) -> Mask:
    """The mask (n,) of one slice every so many mm: the first at or behind each multiple of the step.

    Args:
        positions_mm: (n,) places along the slice axis, ascending.
        step_mm: distance of the slices to keep; slices further apart all stay.
        offset_mm: of the first multiple, from the first slice.

    Raises:
        UserError: the step is not above 0, or the offset not in 0..step.
    """
    if not 0 <= offset_mm < step_mm:
        raise UserError(f"expected a step above 0 mm and an offset below it, found {step_mm:g} and {offset_mm:g}")
    places = positions_mm - (positions_mm[0] if len(positions_mm) else 0) - offset_mm + _ROUNDING_MM
    return (places >= 0) & (np.diff(np.floor(places / step_mm), prepend=-np.inf) > 0)


def evenly(n: int, count: int) -> Mask:
    """The mask (n,) of `count` slices that are as evenly spread as whole indices allow, the first included."""
    kept = np.zeros(n, dtype=bool)
    kept[np.arange(count) * n // max(count, 1)] = True
    return kept


@compiled()
def _find_removers(distances: npt.NDArray[Any], sign: float, removed_at: Scores, removed_by: Indices) -> None:
    """Find the pair at which each slice falls; `removed_at` (signed: smaller is more similar) starts at infinity.

    At a tie between pair (i, j) and the fall of i, slice i fell first: its remover has the smaller index.
    """
    for later in range(1, len(distances)):
        row = distances[later]
        for earlier in range(later):
            score = sign * row[earlier]
            if score < removed_at[later] and score < removed_at[earlier]:
                removed_at[later] = score
                removed_by[later] = earlier
