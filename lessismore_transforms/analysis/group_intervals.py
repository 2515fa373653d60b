"""A number with its interval, where pictures come in groups: patients, sources or volumes.

Pictures of a group look alike. So a whole group is left out at a time (jackknife, Efron & Tibshirani 1993, Chapter 11),
and Student's quantile goes with the number of groups. Intervals are about these networks and new groups of the kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lessismore_transforms.classification.statistics import t_quantile
from lessismore_transforms.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCKS = 50


class Estimate(NamedTuple):
    """A number and its interval.

    Attributes:
        value: of all pictures.
        low: end of the interval; nan where it has none.
        high: end of the interval; nan where it has none.
        groups: number of groups that it is of.
        undefined: pictures that were left out as they have no value.
    """

    value: float
    low: float
    high: float
    groups: int
    undefined: int = 0


def mean_by_groups(
    values: ArrayLike, groups: ArrayLike, *, level: float = 0.95, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Estimate:
    """The mean over pictures, with an interval over groups: of a ratio, the sum of values by the number of pictures.

    Each group is left out once. With one picture in each group it is Student's interval of a mean.

    Args:
        values: (N,); nan for a picture without a value, which is left out.
        groups: (N,) names or numbers.
        level: the share of intervals that hold the true value.
        bounds: least and largest value that there can be; ends lie within them.

    Returns:
        Estimate; without a value where no picture has one, without an interval where one group is left.

    Raises:
        UserError: lengths differ, a value is infinite, or the level is out of range.
    """
    numbers, names = np.asarray(values, np.float64), np.asarray(groups)
    _check(level, numbers, names)
    if np.isinf(numbers).any():
        raise UserError("expected finite values or nan, found infinity: look for a network that diverged")
    known = ~np.isnan(numbers)
    undefined = int((~known).sum())
    if not known.any():
        return Estimate(math.nan, math.nan, math.nan, 0, undefined)
    member = np.unique(names[known], return_inverse=True)[1]
    sizes = np.bincount(member)  # (G,)
    sums = np.bincount(member, numbers[known])
    mean = float(numbers[known].mean())
    if len(sizes) == 1:
        return Estimate(mean, math.nan, math.nan, 1, undefined)
    without = (sums.sum() - sums) / (sizes.sum() - sizes)  # (G,)
    reach = float(jackknife_reach(without, level))
    low, high = np.clip([mean - reach, mean + reach], *bounds).tolist()
    return Estimate(mean, low, high, len(sizes), undefined)


def difference_by_groups(
    first: ArrayLike,
    second: ArrayLike,
    groups: ArrayLike,
    *,
    level: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """The mean over pictures of the first less the second value, with an interval over groups.

    Args:
        first: (N,); nan for a picture without a value. Pictures without one of both are left out.
        second: (N,), of the same pictures.
        groups: as for `mean_by_groups`.
        level: as for `mean_by_groups`.
        bounds: as for `mean_by_groups`.

    Raises:
        UserError: as `mean_by_groups`.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape:
        raise UserError(f"expected two values of the same pictures, found {a.shape} and {b.shape}: give equal lengths")
    return mean_by_groups(a - b, groups, level=level, bounds=bounds)


def jackknife(
    statistic: Callable[[Ints], float],
    groups: ArrayLike,
    *,
    blocks: int = BLOCKS,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """A statistic of pictures that is no mean, such as one of pairs, with an interval over groups.

    Blocks of groups are left out in turn: single groups where there are no more than blocks, else groups at random
    (Kott 2001, the delete-a-group jackknife).

    Args:
        statistic: of rows (n,) of the pictures that are there, in rising order.
        groups: (N,) names or numbers.
        blocks: the most times that the statistic is computed again.
        seed: of the order in which groups fill the blocks.
        level: the share of intervals that hold the true value.

    Returns:
        Estimate; without an interval where there is one group, or the statistic has no value without a block.

    Raises:
        UserError: the level is out of range, or there are fewer than 2 blocks.
    """
    names = np.asarray(groups)
    _check(level, names, names)
    if blocks < 2:
        raise UserError(f"expected 2 blocks or more, found {blocks}: {BLOCKS} are usual")
    member = np.unique(names, return_inverse=True)[1]
    count = int(member.max()) + 1
    value = float(statistic(np.arange(len(names))))
    if count == 1:
        return Estimate(value, math.nan, math.nan, 1)
    blocks = min(blocks, count)
    block = (np.random.default_rng(seed).permutation(count) % blocks)[member]  # (N,)
    without = np.array([statistic(np.flatnonzero(block != left_out)) for left_out in range(blocks)])
    reach = float(jackknife_reach(without, level))
    return Estimate(value, value - reach, value + reach, count)


def jackknife_reach(without: Floats, level: float = 0.95) -> Floats:
    """Half the width of intervals: standard errors of the jackknife times Student's quantile.

    Efron & Tibshirani 1993, Equation 11.5.

    Args:
        without: (B, ...), the values without each of B groups or blocks.
        level: the share of intervals that hold the true value.

    Returns:
        (...); nan where there are fewer than two groups.
    """
    count = len(without)
    if count < 2:
        return np.full(without.shape[1:], math.nan)
    reach: Floats = t_quantile(count - 1, level) * np.sqrt((count - 1) * without.var(axis=0))
    return reach


def _check(level: float, values: NDArray[np.generic], groups: NDArray[np.generic]) -> None:
    if values.ndim != 1 or values.shape != groups.shape or not len(values):
        raise UserError(
            f"expected a value and a group for each picture, found {values.shape} and {groups.shape}: "
            "give two arrays of one length"
        )
    if not 0 < level < 1:
        raise UserError(f"expected a level between 0 and 1, found {level}: 0.95 is usual")
