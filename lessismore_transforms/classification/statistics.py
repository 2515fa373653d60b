"""The uncertainty of a metric, and tests of differences between two networks, over runs, folds and units.

A unit is a patient, a source or a picture, see `units`. Intervals and tests are about these trained networks and new
units of the same kind. How much the result changes when a network is trained again is shown by `mean_std` over runs,
and what several pre-trainings of an arm tell by `crossed`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lessismore_transforms.classification.metrics import Metric, accuracy, auc, f1_micro
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.classification.units import distinct_sets, drawn, strata, units
from lessismore_transforms.errors import UserError
from lessismore_transforms.wording import counted

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Pair = tuple[Ints, Floats, Floats]  # labels (N,), probabilities (N, C) of A and of B
Statistic = Callable[[npt.NDArray[np.bool_]], Floats]  # exchanges (B, units) to differences (B,)

_ROUNDING = 1e-9
_CELLS = 2**21  # weights (B, N) held at once


class Freedom(NamedTuple):
    """The number of units, and how many of them are free to vary, see `free_units`."""

    units: int
    free: float


@dataclass(frozen=True)
class DeLong:
    """The result of `delong_test`.

    Args:
        auc_a: area under the curve of the first model.
        auc_b: of the second.
        difference: auc_a - auc_b.
        z: the difference in standard errors.
        p: two-sided.
    """

    auc_a: float
    auc_b: float
    difference: float
    z: float
    p: float


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the sample standard deviation (divisor n - 1) over runs; the deviation of one run is nan.

    Raises:
        UserError: there are no values.
    """
    if len(values) == 0:
        raise UserError("expected the values of one run or more, found none: name evaluations that have finished")
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def bootstrap_interval(
    runs: Sequence[Predictions], metric: Metric, *, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """The interval of the mean over runs of a metric by the bootstrap of units (Efron & Tibshirani 1993, Chapter 12).

    The units of a test set are drawn with replacement, each with all its images. Runs that share units share the
    draws; test sets without common units, such as folds, are drawn separately. In repeated folds a unit is one, however
    often it is tested, and all are drawn from each other. A resample without a value, such as an AUC when one class was
    not drawn, is left out: drawing it again would give the same distribution, and might never end. The resamples give
    the standard error, times n / (n - 1) for n units in its square (see `free_units` for several test sets); Student's
    quantile with n - 1 degrees of freedom goes with it, on the scale of log odds, as a metric ends at 0 and 1.
    Percentiles of the resamples would hold the true AUC too rarely (91 % for 40 patients, this interval 94 %). Where
    next to nothing is wrong, or right, it is widened as `interval_by_units` tells.

    Args:
        runs: predictions of one test set, of one for each fold, or of several runs or repeats of all folds.
        metric: function of labels (N,), probabilities (N, C) and weights (B, N), the number of times that each image
            was drawn; it returns (B,), of 0 to 1.
        samples: number of resamples.
        seed: of the draws.
        level: the share of intervals that hold the true value.

    Returns:
        Lower and upper end; nan where the metric has no value, or a test set has one unit only.

    Raises:
        UserError: there are no runs, or samples or level are out of range.
    """
    if not runs or samples < 1 or not 0 < level < 1:
        raise UserError(
            f"expected one run or more, 1 sample or more and a level between 0 and 1, found "
            f"{counted(len(runs), 'run')}, {counted(samples, 'sample')} and level {level}: 1000 samples and level 0.95 "
            "are usual"
        )
    (values,), freedom = resampled([runs], metric, samples=samples, seed=seed)
    if len(values) == 0:
        return math.nan, math.nan
    error = float(np.std(values)) * math.sqrt(freedom.units / freedom.free)
    return interval_by_units(runs, metric, values, mean_of_runs(runs, metric), error, freedom.free, level)


def resampled(
    groups: Sequence[Sequence[Predictions]], metric: Metric, *, samples: int, seed: int = 0
) -> tuple[Floats, Freedom]:
    """The mean over the runs of each group (G, B) when the units of all are drawn, and what is free in such a draw.

    All groups share the draws. Draws in which a group has no value are left out, all of them where a test set has one
    unit only. Where test sets overlap, as those of repeated folds do, a group has the mean over its runs with a value:
    of many small folds there is nearly always one in which a class was not drawn.

    Args:
        groups: runs whose metrics are averaged, such as the folds of a network.
        metric: as for `bootstrap_interval`.
        samples: number of resamples.
        seed: of the draws.
    """
    runs = [run for group in groups for run in group]
    found, count = units(runs)
    sets = strata(found)
    if min(map(len, sets)) < 2:
        return np.empty((len(groups), 0)), Freedom(count, 0)
    average = _mean_of_known if len(distinct_sets(found)) > len(sets) else _mean_of_all
    rng = np.random.default_rng(seed)
    ends = np.cumsum([0, *map(len, groups)])
    parts = []
    for batch in _batches(samples, max(len(run.labels) for run in runs)):
        weights = drawn(rng, sets, batch, count)
        each = [metric(run.labels, run.probabilities, weights[:, unit]) for run, unit in zip(runs, found, strict=True)]
        parts.append([average(each[start:end]) for start, end in pairwise(ends)])
    values = np.concatenate(parts, axis=1)
    return values[:, ~np.isnan(values).any(axis=0)], Freedom(count, free_units(found, count))


def free_units(found: Sequence[Ints], count: int) -> float:
    """How many of the units are free to vary when all are drawn: less one for each test set, as its mean is known.

    Where test sets overlap, as in repeated folds, a unit's part in the mean over runs is that of all its test sets, in
    each less the set's own mean. The expected sum of squares of these parts is smaller than with the true mean by a
    factor that units of one variance give: with n_k units in test set k, and m in both k and l, it is
    sum of m / (n_k n_l) (1 - 1 / n_k - 1 / n_l + m / (n_k n_l)), divided by sum of m / (n_k n_l), over all k and l. For
    disjoint sets of one size both are the same.

    Args:
        found: the unit of each image of each run.
        count: number of units.
    """
    sets = distinct_sets(found)
    if len(sets) == len(strata(found)):
        return count - len(sets)
    member = np.zeros((count, len(found)))  # (units, runs)
    for run, unit in enumerate(found):
        member[unit, run] = 1
    sizes = member.sum(axis=0)
    shared = member.T @ member  # (runs, runs)
    weight = shared / np.outer(sizes, sizes)
    varying = weight * (1 - 1 / sizes - 1 / sizes[:, None] + weight)
    return count * float(varying.sum() / weight.sum())


def _mean_of_all(values: Sequence[Floats]) -> Floats:
    """The mean (B,) of K values (K, B); nan where one is."""
    mean: Floats = np.mean(values, axis=0)
    return mean


def _mean_of_known(values: Sequence[Floats]) -> Floats:
    """The mean (B,) of those of K values (K, B) that are known; nan where none is."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    mean: Floats = np.divide(total, known.sum(axis=0), out=np.full(total.shape, np.nan), where=known.any(axis=0))
    return mean


def mean_of_runs(runs: Sequence[Predictions], metric: Metric) -> float:
    """The mean over runs of a metric."""
    return float(np.mean([metric(run.labels, run.probabilities, None) for run in runs]))


def t_quantile(freedom: float, level: float) -> float:
    """Student's quantile for the two ends of an interval; the normal one for infinite freedom."""
    from scipy.special import ndtri, stdtrit

    return float(ndtri((1 + level) / 2) if math.isinf(freedom) else stdtrit(freedom, (1 + level) / 2))


def interval_by_units(
    runs: Sequence[Predictions],
    metric: Metric,
    values: Floats,
    mean: float,
    error: float,
    freedom: float,
    level: float,
) -> tuple[float, float]:
    """The interval of log odds, joined with an exact one where resamples show too few of the units that matter.

    That is where they do not differ, or where more of them are 0 or 1 than may lie outside of one end: then nothing, or
    what one unit or two hold, is wrong (or right), and how seldom that is cannot be told from a resample. The exact
    interval (Clopper & Pearson 1934) counts as many units as the smallest class has, all units for accuracy. An AUC of
    1 pairs each of the smallest class with another one. It is rather too wide.

    Args:
        runs: all that the mean is of.
        metric: as for `bootstrap_interval`.
        values: the mean in each resample (B,).
        mean: as for `log_odds_interval`.
        error: as for `log_odds_interval`.
        freedom: as for `log_odds_interval`.
        level: as for `log_odds_interval`.
    """
    low, high = log_odds_interval(mean, error, freedom, level)
    ends = np.mean((values < _ROUNDING) | (values > 1 - _ROUNDING))
    if math.isnan(mean) or (error > _ROUNDING and ends <= (1 - level) / 2):
        return low, high
    exact = exact_interval(mean, _units_that_count(runs, metric), level)
    return min(low, exact[0]), max(high, exact[1])


def exact_interval(share: float, count: int, level: float) -> tuple[float, float]:
    """The interval of a share of so many units by Clopper & Pearson (1934): of 20 of 20 it is 0.83 to 1."""
    from scipy.special import betaincinv

    hits, outside = share * count, (1 - level) / 2
    low = float(betaincinv(hits, count - hits + 1, outside)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - outside)) if hits < count else 1.0
    return low, high


def _units_that_count(runs: Sequence[Predictions], metric: Metric) -> int:
    """The number of units of the smallest class, of all classes for accuracy."""
    found, count = units(runs)
    if metric in (accuracy, f1_micro):
        return count
    of_class: dict[int, set[int]] = {}
    for run, unit in zip(runs, found, strict=True):
        for label in np.unique(run.labels).tolist():
            of_class.setdefault(label, set()).update(unit[run.labels == label].tolist())
    return min(map(len, of_class.values()))


def log_odds_interval(mean: float, error: float, freedom: float, level: float) -> tuple[float, float]:
    """The ends of an interval of a mean that is between 0 and 1, symmetric in its log odds.

    Args:
        mean: of a metric.
        error: its standard error.
        freedom: degrees of freedom of the error.
        level: the share of intervals that hold the true value.
    """
    if error == 0 or not 0 < mean < 1:
        return mean, mean
    middle, reach = math.log(mean / (1 - mean)), t_quantile(freedom, level) * error / (mean * (1 - mean))
    low, high = (0.5 + 0.5 * math.tanh((middle + side) / 2) for side in (-reach, reach))
    return low, high


def permutation_test(
    runs_a: Sequence[Predictions],
    runs_b: Sequence[Predictions],
    metric: Metric,
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> float:
    """The two-sided p-value of the difference between two models on the same images.

    If the models are equally good, the predictions for a unit, all its images, may be exchanged between them, in all
    runs at once. The p-value is the share of random exchanges after which the mean
    over runs of metric(A) - metric(B) is at least as far from 0 as before. The observed difference counts as one of the
    exchanges (Phipson & Smyth 2010), so that p is never 0; it is 1 for equal predictions.

    For `metrics.auc`, which depends on ranks only, ranks within each model are exchanged instead of probabilities
    (as Venkatraman & Begg 1996). Otherwise models with different calibration would spoil each other's order, and the
    test would miss almost any difference. For other metrics the probabilities themselves are exchanged.

    Args:
        runs_a: predictions of the first model.
        runs_b: predictions of the second model; run i has the images of run i of the first, in any order.
        metric: as for `bootstrap_interval`.
        samples: number of random exchanges.
        seed: of the exchanges.

    Returns:
        The p-value; nan where the metric has no value.

    Raises:
        UserError: the runs differ in number, images, labels, patients, sources or classes.
    """
    if samples < 1:
        raise UserError(f"expected 1 sample or more, found {samples}: 10000 is usual")
    pairs = _paired(runs_a, runs_b)
    found, count = units(runs_a)
    difference = _area_difference(pairs, found, count) if metric is auc else _difference(metric, pairs, found)
    observed = abs(difference(np.zeros((1, count), dtype=bool))[0])
    if np.isnan(observed):
        return math.nan
    rng = np.random.default_rng(seed)
    extreme = 0
    for batch in _batches(samples, 2 * max(len(run.labels) for run in runs_a)):
        moved = np.abs(difference(rng.integers(2, size=(batch, count), dtype=np.int8).astype(bool)))
        extreme += int(np.sum(moved >= observed - 1e-12))  # what is equal but for rounding counts
    return (1 + extreme) / (1 + samples)


def delong_test(labels: npt.ArrayLike, scores_a: npt.ArrayLike, scores_b: npt.ArrayLike) -> DeLong:
    """Compare the areas under two ROC curves of the same images (DeLong, DeLong & Clarke-Pearson 1988).

    Placements come from mid-ranks, in O(n log n) (Sun & Xu 2014). Images count as independent: where a patient or
    source has several, p is too small and `permutation_test` should be used instead. The test is about two networks:
    it does not tell whether one way of training is better than another.

    Args:
        labels: (N,), 1 for the positive class, else 0.
        scores_a: (N,), of the first model; larger means positive.
        scores_b: (N,), of the second.

    Returns:
        Areas, difference, z and p. Equal areas give z = 0 and p = 1. Otherwise z and p are nan where the variance
        cannot be estimated: a class has one image, or the models differ by the same amount on all images of each class.

    Raises:
        UserError: lengths differ, a score is not finite, or labels are not 0 and 1 or only one of them.
    """
    truth, first, second = np.asarray(labels), np.asarray(scores_a, float), np.asarray(scores_b, float)
    if not (truth.ndim == 1 and truth.shape == first.shape == second.shape):
        raise UserError(
            f"expected labels and two scores of the same images, found shapes {truth.shape}, {first.shape} and "
            f"{second.shape}: give three arrays of one length"
        )
    if set(truth.tolist()) != {0, 1}:
        raise UserError(f"expected labels 0 and 1, found {sorted(set(truth.tolist()))}: name one class positive")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise UserError("expected finite scores, found nan or infinity: look for a run that diverged")

    positive = truth == 1
    m, n = int(positive.sum()), int((~positive).sum())
    placed_a, placed_b = _placements(positive, first), _placements(positive, second)
    auc_a, auc_b = (float(placed[positive].sum()) / (m * n) for placed in (placed_a, placed_b))
    over = placed_a - placed_b  # (N,) exact
    difference = float(over[positive].sum()) / (m * n)
    if difference == 0:  # exactly: a sum of halves
        z = 0.0
    elif min(m, n) < 2 or not (np.ptp(over[positive]) or np.ptp(over[~positive])):
        z = math.nan
    else:
        z = difference / math.sqrt(np.var(over[positive] / n, ddof=1) / m + np.var(over[~positive] / m, ddof=1) / n)
    return DeLong(auc_a, auc_b, difference, z, math.erfc(abs(z) / math.sqrt(2)))


def holm(p_values: npt.ArrayLike) -> Floats:
    """P-values (K,) adjusted for their number by Holm's step-down method (1979); nan stays nan and does not count.

    Raises:
        UserError: a value is not in 0..1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(p))
    if np.any((p[known] < 0) | (p[known] > 1)):
        raise UserError(f"expected p-values from 0 to 1, found {p[known].min()} to {p[known].max()}: give p-values")
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full_like(p, math.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted


def _placements(positive: npt.NDArray[np.bool_], scores: Floats) -> Floats:
    """The number (N,) of images of the other class with which each image is in the right order; equal ones count half.

    Summed over a class and divided by the number of pairs it is the area. The numbers are halves of integers, hence
    exact.
    """
    own = np.empty(len(scores))
    for members in (positive, ~positive):
        own[members] = _mid_ranks(scores[members])
    lower = _mid_ranks(scores) - own
    return np.where(positive, lower, positive.sum() - lower)


def _mid_ranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _batches(samples: int, images: int) -> Iterator[int]:
    """The sizes of batches that are small enough for memory and together have the number of samples."""
    batch = max(1, _CELLS // images)
    yield from (min(batch, samples - start) for start in range(0, samples, batch))


def _difference(metric: Metric, pairs: Sequence[Pair], units: Sequence[Ints]) -> Statistic:
    """The mean over runs of metric(A) - metric(B) after exchanges, which are weights of both models' rows."""
    pools = [(np.tile(labels, 2), np.concatenate([first, second])) for labels, first, second in pairs]

    def difference(exchanged: npt.NDArray[np.bool_]) -> Floats:
        total = np.zeros(len(exchanged))
        for (labels, probabilities), unit in zip(pools, units, strict=True):
            swap = exchanged[:, unit]  # (B, N)
            weights = np.concatenate([~swap, swap], axis=1).astype(np.float64)  # (B, 2N): rows of A, then of B
            total += metric(labels, probabilities, weights) - metric(labels, probabilities, 1 - weights)
        return total / len(pools)

    return difference


def _area_difference(pairs: Sequence[Pair], units: Sequence[Ints], count: int) -> Statistic:
    """The same for the AUC of ranks, which is a sum over units: the part of a unit changes its sign when exchanged.

    With k(x, y) = 1, 1/2, 0 for a positive above, equal to, below a negative, and w = 1 for rows of A, 0 for rows of B,
    m n (AUC(A) - AUC(B)) is the sum over all pairs in the pool of both of
    k w_x w_y - k (1 - w_x) (1 - w_y) = k (w_x - 1/2) + k (w_y - 1/2): half the placements in the pool, with a sign.
    """
    parts = np.zeros(count)
    for (labels, first, second), unit in zip(pairs, units, strict=True):
        classes = range(first.shape[1]) if first.shape[1] > 2 else [1]
        areas = [_area_parts(labels == c, first[:, c], second[:, c]) for c in classes]
        parts += np.bincount(unit, np.mean(areas, axis=0), count) / len(pairs)
    return lambda exchanged: (1.0 - 2.0 * exchanged) @ parts  # (B, units) @ (units,)


def _area_parts(positive: npt.NDArray[np.bool_], first: Floats, second: Floats) -> Floats:
    """The part (N,) of AUC(A) - AUC(B) that each image adds; nan where there is one class only."""
    ordered = int(positive.sum()) * int((~positive).sum())
    if ordered == 0:
        return np.full(len(positive), math.nan)
    ranks = np.concatenate([_mid_ranks(first), _mid_ranks(second)])
    of_a, of_b = np.split(_placements(np.tile(positive, 2), ranks), 2)
    parts: Floats = (of_a - of_b) / (2 * ordered)
    return parts


def _paired(runs_a: Sequence[Predictions], runs_b: Sequence[Predictions]) -> list[Pair]:
    """Labels (N,) and the probabilities (N, C) of both models for each pair of runs, in the order of A's rows."""
    if len(runs_a) != len(runs_b) or not runs_a:
        raise UserError(
            f"expected as many runs of both models, one or more, found {len(runs_a)} and {len(runs_b)}: "
            "compare runs with the same numbers"
        )
    pairs = []
    for number, (a, b) in enumerate(zip(runs_a, runs_b, strict=True)):
        place = {image: row for row, image in enumerate(b.image_ids)}
        if unshared := place.keys() ^ set(a.image_ids):
            raise UserError(
                f"expected the same images in run {number} of both models, found {counted(len(unshared), 'image')} of "
                "one model only: compare models on the same test set"
            )
        rows = np.array([place[image] for image in a.image_ids])
        _check_same(number, a, b, rows)
        pairs.append((a.labels, a.probabilities, b.probabilities[rows]))
    return pairs


def _check_same(number: int, a: Predictions, b: Predictions, rows: Ints) -> None:
    patients, sources = ([column[row] for row in rows] for column in (b.patients, b.sources))
    for column, unequal in (
        ("labels", a.labels != b.labels[rows]),
        ("patients", np.array(a.patients, dtype=object) != np.array(patients, dtype=object)),
        ("sources", np.array(a.sources, dtype=object) != np.array(sources, dtype=object)),
    ):
        if np.any(unequal):
            raise UserError(
                f"expected the same {column} in run {number} of both models, found other {column} for "
                f"{counted(int(np.sum(unequal)), 'image')}, first {a.image_ids[int(np.argmax(unequal))]}: evaluate "
                "both on the same lists"
            )
    if a.probabilities.shape[1] != b.probabilities.shape[1]:
        raise UserError(
            f"expected as many classes in run {number} of both models, found {a.probabilities.shape[1]} and "
            f"{b.probabilities.shape[1]}: compare models of the same task"
        )
