"""The uncertainty of a metric, and tests of differences between two models, over runs, folds and patients.

Intervals and tests are about these trained networks and new patients of the same kind. How much the result changes when
a network is trained again is shown by `mean_std` over runs only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from lessismore_transforms.classification.metrics import Metric, auc
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.errors import UserError
from lessismore_transforms.wording import counted

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Pair = tuple[Ints, Floats, Floats]  # labels (N,), probabilities (N, C) of A and of B
Statistic = Callable[[npt.NDArray[np.bool_]], Floats]  # exchanges (B, units) to differences (B,)

_CELLS = 2**21  # weights (B, N) held at once


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


def unit_of(predictions: Predictions) -> Literal["patient", "image"]:
    """The independent unit: the patient, where that of every image is known, else the image."""
    return "patient" if all(predictions.patients) else "image"


def bootstrap_interval(
    runs: Sequence[Predictions], metric: Metric, *, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """The percentile interval of the mean over runs of a metric (Efron & Tibshirani 1993, Chapter 13).

    The patients of a test set are drawn with replacement, each with all images; an image whose patient is not known is
    drawn alone. Runs that share patients share the draws; test sets without common patients, such as folds, are drawn
    separately. A resample without a value, such as an AUC when one class was not drawn, is left out: drawing it again
    would give the same distribution, and might never end. With few patients the interval is a little too short.

    Args:
        runs: predictions of one test set, of one for each fold, or of several runs of all folds.
        metric: function of labels (N,), probabilities (N, C) and weights (B, N), the number of times that each image
            was drawn; it returns (B,).
        samples: number of resamples.
        seed: of the draws.
        level: the share of resamples inside the interval.

    Returns:
        Lower and upper end; nan where the metric has no value, or a test set has one patient only.

    Raises:
        UserError: there are no runs, or samples or level are out of range.
    """
    if not runs or samples < 1 or not 0 < level < 1:
        raise UserError(
            f"expected one run or more, 1 sample or more and a level between 0 and 1, found "
            f"{counted(len(runs), 'run')}, {counted(samples, 'sample')} and level {level}: 1000 samples and level 0.95 "
            "are usual"
        )
    units, count = _units(runs)
    strata = _strata(units)
    if min(map(len, strata)) < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    values = np.concatenate(
        [
            _mean_of_runs(runs, metric, _drawn(rng, strata, batch, count), units)
            for batch in _batches(samples, max(len(run.labels) for run in runs))
        ]
    )
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def permutation_test(
    runs_a: Sequence[Predictions],
    runs_b: Sequence[Predictions],
    metric: Metric,
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> float:
    """The two-sided p-value of the difference between two models on the same images.

    If the models are equally good, the predictions for a patient (for an image whose patient is not known) may be
    exchanged between them, in all runs at once. The p-value is the share of random exchanges after which the mean
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
        UserError: the runs differ in number, images, labels, patients or classes.
    """
    if samples < 1:
        raise UserError(f"expected 1 sample or more, found {samples}: 10000 is usual")
    pairs = _paired(runs_a, runs_b)
    units, count = _units(runs_a)
    difference = _area_difference(pairs, units, count) if metric is auc else _difference(metric, pairs, units)
    observed = abs(difference(np.zeros((1, count), dtype=bool))[0])
    if np.isnan(observed):
        return math.nan
    rng = np.random.default_rng(seed)
    extreme = 0
    for batch in _batches(samples, 2 * max(len(run.labels) for run in runs_a)):
        found = np.abs(difference(rng.integers(2, size=(batch, count), dtype=np.int8).astype(bool)))
        extreme += int(np.sum(found >= observed - 1e-12))  # what is equal but for rounding counts
    return (1 + extreme) / (1 + samples)


def delong_test(labels: npt.ArrayLike, scores_a: npt.ArrayLike, scores_b: npt.ArrayLike) -> DeLong:
    """Compare the areas under two ROC curves of the same images (DeLong, DeLong & Clarke-Pearson 1988).

    Placements come from mid-ranks, in O(n log n) (Sun & Xu 2014). Images count as independent: where a patient has
    several, p is too small and `permutation_test` should be used instead.

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


def _units(runs: Sequence[Predictions]) -> tuple[list[Ints], int]:
    """The unit's number for each image of each run, the same in all runs, and the number of units."""
    numbers: dict[tuple[str, str], int] = {}
    units = [
        np.array(
            [
                numbers.setdefault((patient, "" if patient else image), len(numbers))
                for patient, image in zip(run.patients, run.image_ids, strict=True)
            ],
            np.int64,
        )
        for run in runs
    ]
    return units, len(numbers)


def _strata(units: Sequence[Ints]) -> list[Ints]:
    """The units of each test set; runs that share a unit share a test set."""
    strata: list[set[int]] = []
    for run in units:
        members = set(run.tolist())
        shared = [stratum for stratum in strata if stratum & members]
        strata = [stratum for stratum in strata if not stratum & members] + [members.union(*shared)]
    return [np.array(sorted(stratum), np.int64) for stratum in strata]


def _drawn(rng: np.random.Generator, strata: Sequence[Ints], batch: int, count: int) -> Floats:
    """The number of draws of each unit (B, units); each stratum is resampled with as many draws as it has units."""
    drawn = np.zeros((batch, count))
    for stratum in strata:
        size = len(stratum)
        cells = rng.integers(size, size=(batch, size)) + size * np.arange(batch)[:, None]  # (B, size)
        drawn[:, stratum] = np.bincount(cells.ravel(), minlength=batch * size).reshape(batch, size)
    return drawn


def _batches(samples: int, images: int) -> Iterator[int]:
    """The sizes of batches that are small enough for memory and together have the number of samples."""
    batch = max(1, _CELLS // images)
    yield from (min(batch, samples - start) for start in range(0, samples, batch))


def _mean_of_runs(runs: Sequence[Predictions], metric: Metric, drawn: Floats, units: Sequence[Ints]) -> Floats:
    """The mean over runs of a metric (B,), with units weighted by their number of draws (B, units)."""
    pairs = zip(runs, units, strict=True)
    mean: Floats = np.mean([metric(run.labels, run.probabilities, drawn[:, unit]) for run, unit in pairs], axis=0)
    return mean


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
    patients = [b.patients[row] for row in rows]
    for column, unequal in (
        ("labels", a.labels != b.labels[rows]),
        ("patients", np.array(a.patients, dtype=object) != np.array(patients, dtype=object)),
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
