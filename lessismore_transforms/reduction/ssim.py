"""Structural similarity (SSIM) of the slices of a volume, and the pair rule that measures few of its pairs.

Wolf et al. 2024 (doi 10.1016/j.compbiomed.2024.109242), Section 2.1, Eq. 1, after Wang et al. 2004: K1 = 0.01,
K2 = 0.03, L = 255 and the mean over 11 x 11 Gaussian windows. What the paper leaves open is as in scikit-image's
`structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)`: sigma 1.5,
variances over n, and only windows that lie wholly inside the picture count.

With a, b and s, t a window's means and standard deviations in two slices, and d that of their difference,

    1 - SSIM = 1 - (1 - A) (1 - B),    A = (a - b)^2 / (a^2 + b^2 + C1),    B = d^2 / (s^2 + t^2 + C2).

Only d needs the pair. This form loses nothing where slices are alike, and gives a bound without d: as d >= |s - t|,
1 - SSIM >= max(A, B) >= max(A, B'), where B' has (s - t)^2 for d^2 (and, unlike B, is at most 1). Both have the form
(x - y)^2 / (p + q), which is convex: sums over a block of windows in place of x, y, p and q give less than the sum.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.selection import Mask, Ranking, Scores, removal_order
from lessismore_transforms.reduction.ssim_kernels import WINDOW, Pairs, Slices, sweep, sweep_torch

_ROUNDING = 2e-6  # float32 moves a measure by less than this times 1 + its condition; a sixth of it was found
_BOUND, _SINGLE, _DOUBLE = 0, 1, 2  # how well a pair is known


def ssim_matrix(slices: Slices, *, device: str | None = None) -> Scores:
    """The SSIM of each pair of slices.

    In float32, within 1e-6 on CT (4e-7 found; between flat areas of different grey up to 7e-5). Pairs too close to
    each other for that are in float64 where the pair rule depends on them, so that `removal_order` of this matrix
    gives float64's ranking. Takes, beside the slices, about 0.1 KB per pair and 64 KiB per slice of 512 columns
    (1000 slices of 512 x 512: 0.2 GB), with torch up to 1.5 GB more on the device.

    Args:
        slices: uint8 (S, H, W), H and W at least 11.
        device: None for the compiled kernel on one core; "cpu", "cuda" or "cuda:1" for torch.

    Returns:
        float64 (S, S), symmetric, 1 on the diagonal and between equal slices.

    Raises:
        UserError: the slices are not as above.
    """
    _check(slices)
    if len(slices) < 2:
        return np.eye(len(slices))
    slices = np.ascontiguousarray(slices)
    known = _compare_all(slices, device)
    _settle(slices, known, count=1)
    lower = np.tril(known.guess, -1)
    matrix: Scores = lower + lower.T + np.eye(len(slices))
    return matrix


def ssim_removal_order(slices: Slices, *, count: int, device: str | None = None) -> Ranking:
    """Rank the slices that the pair rule removes by SSIM until `count` are left, in float64's order.

    By the kernel for the CPU most pairs are not measured: an upper bound shows that one of their slices falls before.
    Memory as for `ssim_matrix`.

    Args:
        slices: uint8 (S, H, W), H and W at least 11.
        count: slices to leave, at least 1.
        device: as for `ssim_matrix`; torch measures all pairs.

    Returns:
        For the slices removed what `removal_order` says of the matrix (rank S for the first, count + 1 for the last),
        removed_at within its rounding; for those left removed_at NaN, removed_by -1 and rank 0.

    Raises:
        UserError: the slices are not as above, or the count is below 1.
    """
    _check(slices)
    if count < 1:
        raise UserError(f"expected at least 1 slice to keep, found {count}; the pair rule never removes the last one")
    n = len(slices)
    if n <= count:
        return Ranking(np.full(n, np.nan), np.full(n, -1), np.zeros(n, np.int64))
    slices = np.ascontiguousarray(slices)
    ranking = _settle(slices, _bound_all(slices) if device is None else _compare_all(slices, device), count)
    left = ranking.rank <= count
    return Ranking(
        np.where(left, np.nan, ranking.removed_at),
        np.where(left, -1, ranking.removed_by),
        np.where(left, 0, ranking.rank),
    )


@dataclass(frozen=True, eq=False)
class _Known:
    """What is known of the SSIM of the pairs [later, earlier] of n slices; entries on and above the diagonal idle.

    Args:
        bound: float64 (n, n), what the dissimilarity 1 - SSIM surely reaches.
        guess: float64 (n, n), the SSIM as measured or guessed.
        upper: float64 (n, n), what the SSIM surely does not exceed.
        level: uint8 (n, n), whether it is guessed, measured in float32 or measured in float64.
    """

    bound: Scores
    guess: Scores
    upper: Scores
    level: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, slices: Slices, bound: Scores) -> _Known:
        """The bounds, and that equal slices have 1 (many slices of a volume can be blank)."""
        first: dict[bytes, int] = {}
        same = np.array([first.setdefault(hashlib.sha256(one).digest(), i) for i, one in enumerate(slices)])
        equal = same[:, None] == same
        bound[equal] = 0
        upper = np.where(equal, 1, np.minimum(1, 1 - bound + 10 * _ROUNDING))
        return cls(bound, upper.copy(), upper, np.where(equal, _DOUBLE, _BOUND).astype(np.uint8))

    def measured(self, pairs: Pairs, measure: Scores, level: int) -> None:
        """Take in what `sweep` measured (2, P) of pairs that were known less well."""
        dissimilarity, condition = measure
        self.guess[pairs] = 1 - dissimilarity
        self.upper[pairs] = 1 - dissimilarity + (_ROUNDING * (1 + condition) if level == _SINGLE else 0)
        self.level[pairs] = level

    def extrapolate(self) -> None:
        """Guess that pairs exceed their bound as much as those that are measured."""
        both = (self.level != _BOUND) & (self.bound > 0)
        excess = np.median((1 - self.guess[both]) / self.bound[both]) if both.any() else 1.0
        unmeasured = self.level == _BOUND
        self.guess[unmeasured] = 1 - max(1.0, excess) * self.bound[unmeasured]


def _check(slices: Slices) -> None:
    if slices.dtype != np.uint8 or slices.ndim != 3 or (len(slices) and min(slices.shape[1:]) < WINDOW):
        raise UserError(
            f"expected uint8 slices (S, H, W) of at least {WINDOW} x {WINDOW} pixels, found {slices.dtype} of shape "
            f"{slices.shape}; scale them with min_max_uint8, and take another measure for pictures that small"
        )


def _compare_all(slices: Slices, device: str | None) -> _Known:
    """Measure all pairs in float32."""
    known = _Known.of(slices, np.zeros((len(slices), len(slices))))
    pairs = np.nonzero(np.tri(len(slices), k=-1, dtype=bool) & (known.level == _BOUND))
    measure = sweep(slices, pairs) if device is None else sweep_torch(slices, device)[:, pairs[0], pairs[1]]
    known.measured(pairs, measure, _SINGLE)
    return known


def _bound_all(slices: Slices) -> _Known:
    """Bound all pairs, and measure neighbours, of which most will be needed."""
    later = np.arange(1, len(slices))
    bound = np.zeros((len(slices), len(slices)))
    measure = sweep(slices, (later, later - 1), bound=bound)
    known = _Known.of(slices, bound)
    unequal = known.level[later, later - 1] == _BOUND
    known.measured((later[unequal], later[unequal] - 1), measure[:, unequal], _SINGLE)
    return known


def _settle(slices: Slices, known: _Known, count: int) -> Ranking:
    """Measure what the pair rule depends on until `count` slices are left, and return its ranking.

    The rule is played with guesses; pairs that could have changed a decision are measured, and it is played again.
    """
    while True:
        known.extrapolate()
        ranking = removal_order(known.guess, similarity=True)
        doubtful = _doubtful(known, ranking, count)
        if not doubtful.any():
            return ranking
        level = int(known.level[doubtful].min()) + 1
        pairs = np.nonzero(doubtful & (known.level < level))
        known.measured(pairs, sweep(slices, pairs, np.float32 if level == _SINGLE else np.float64), level)


def _doubtful(known: _Known, ranking: Ranking, count: int) -> Mask:
    """The pairs (n, n), not yet in float64, whose true SSIM may change the ranking down to `count` slices.

    Fall k is decided by a pair that must not be less similar than any other pair of slices then still there.
    """
    n = len(known.guess)
    falls = n - count
    fall = np.minimum(n - ranking.rank, falls)  # of each slice; `falls` for those left
    removed = np.argsort(fall, kind="stable")[:falls]
    deciding = removed, ranking.removed_by[removed]
    guess, upper = known.guess[deciding], known.upper[deciding]
    lowest = np.where(known.level[deciding] == _BOUND, guess, 2 * guess - upper)
    floor = np.minimum.accumulate(np.append(np.inf, lowest))  # [k]: of the falls before k
    last = np.minimum.outer(fall, fall)  # the fall that ends a pair
    before = np.minimum(last + 1, falls)
    before[deciding] = np.arange(falls)  # a pair competes with the others, not with itself
    limit = floor[before]
    exact = known.level == _DOUBLE
    doubtful: Mask = np.tri(n, k=-1, dtype=bool) & ((known.upper > limit) | ((known.upper == limit) & ~exact))
    doubtful[deciding] |= known.level[deciding] == _BOUND
    rivals = np.full(falls + 1, -np.inf)  # [k]: the most similar that a doubtful pair, there at fall k, can be
    np.maximum.at(rivals, last[doubtful], known.upper[doubtful])
    rivals = np.maximum.accumulate(rivals[::-1])[::-1]
    doubtful[deciding] |= lowest < rivals[:falls]
    doubtful &= ~exact
    return doubtful
