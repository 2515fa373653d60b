"""Contrasts between arms whose pre-trainings are paired by their seed, of one task or of the mean over several.

Network number r of every arm began with the same weights, and, on the same slices, with the same order of draws. So a
contrast, a weighted sum of arms, has one value for each r, and what those have in common is not noise. Two factors are
crossed as in `crossed`: networks, and units of each task's test pictures.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.classification.crossed import (
    LEAST_NETWORKS,
    Networks,
    Variance,
    detectable_difference,
    total,
)
from lessismore_transforms.classification.metrics import Metric
from lessismore_transforms.classification.statistics import Freedom, mean_of_runs, resampled, t_quantile
from lessismore_transforms.errors import UserError

Floats = NDArray[np.float64]
_MOST = 1000  # networks of an arm that anybody would train
# Of a contrast of one network: far below what one picture changes, far above what is left where equal arms cancel.
_DIGITS = 12


@dataclass(frozen=True)
class Contrast:
    """A contrast with its uncertainty about other networks and other units.

    Args:
        value: mean over networks and tasks.
        error: standard error of it.
        freedom: degrees of freedom of the error.
        networks: number of networks of each arm.
        of_networks: the part of the variance that more networks would make smaller, for one network.
        of_units: the part of the variance that only more units would make smaller.
        freedom_of_units: degrees of freedom of that part.
    """

    value: float
    error: float
    freedom: float
    networks: int
    of_networks: float
    of_units: float
    freedom_of_units: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Lower and upper end of the interval that holds the true value with this probability."""
        reach = t_quantile(self.freedom, level) * self.error
        return self.value - reach, self.value + reach

    @property
    def p(self) -> float:
        """Two-sided, that there is no difference; nan for fewer networks than `crossed.LEAST_NETWORKS`."""
        return math.nan if self.networks < LEAST_NETWORKS else 2 * self._beyond(abs(self.value))

    def p_equivalent(self, margin: float) -> float:
        """Of two one-sided tests that the true value is beyond -margin or margin (Schuirmann 1987): the larger p."""
        if self.networks < LEAST_NETWORKS:
            return math.nan
        return max(self._beyond(margin + self.value), self._beyond(margin - self.value))

    def _beyond(self, distance: float) -> float:
        from scipy.special import stdtr

        if not self.error > 0:
            return 0.0 if distance > 0 else 0.5 if distance == 0 else 1.0
        return float(stdtr(self.freedom, -distance / self.error))

    @property
    def detectable(self) -> float:
        """The smallest true value that such an interval leaves 0 out for with a power of 80 %."""
        return detectable_difference(self.error, self.freedom)

    def networks_for(self, difference: float) -> int | None:
        """How many networks of each arm make this difference detectable; None where no number does.

        The variances are taken for the true ones; fewer networks than `crossed.LEAST_NETWORKS` are never enough.
        None of one network, whose variance nobody knows.
        """
        if self.networks == 1 or self._detectable(_MOST) > difference:
            return None
        numbers = range(LEAST_NETWORKS, _MOST + 1)
        return numbers[bisect_left(numbers, True, key=lambda number: self._detectable(number) <= difference)]

    def _detectable(self, networks: int) -> float:
        """The smallest true value that so many networks of each arm would show."""
        parts = (
            Variance(self.of_networks / networks, networks - 1),
            Variance(self.of_units, self.freedom_of_units),
        )
        variance = total(parts)
        return detectable_difference(math.sqrt(variance.value), variance.freedom)


def contrast(
    tasks: Sequence[Sequence[Networks]],
    weights: Sequence[float],
    metric: Metric,
    *,
    samples: int = 1000,
    seed: int = 0,
) -> Contrast:
    """A weighted sum of arms, paired by networks, as the mean over tasks.

    Args:
        tasks: for each task the arms, for each arm its networks, equally many and in the same order, each with its
            runs; all networks of a task are scored on the same test sets, and no two tasks share a picture.
        weights: of the arms; 1 and -1 for a difference.
        metric: as for `statistics.bootstrap_interval`.
        samples: resamples of the units of each task.
        seed: of the draws.

    Raises:
        UserError: arms have different numbers of networks.
    """
    counts = {len(arm) for arms in tasks for arm in arms}
    if len(counts) != 1:
        raise UserError(f"expected equally many networks in all arms, paired by seed, found {sorted(counts)}")
    (networks,) = counts
    parts = [_of_task(arms, weights, metric, samples, seed + number) for number, arms in enumerate(tasks)]
    scores = np.mean([part[0] for part in parts], axis=0)  # (R,)
    shares = [part[1] / len(tasks) ** 2 for part in parts]
    units, free = total([Variance(share, part[3]) for share, part in zip(shares, parts, strict=True)])
    both = sum(part[2] for part in parts) / len(tasks) ** 2
    value = float(scores.mean())
    if networks == 1:
        return Contrast(value, math.sqrt(units), free, 1, math.nan, units, free)
    of_networks = max(float(np.var(scores, ddof=1)) / networks, both)
    rest = max(0.0, units - both)
    variance = total([Variance(of_networks, networks - 1), Variance(rest, free)])
    return Contrast(value, math.sqrt(variance.value), variance.freedom, networks, networks * of_networks, rest, free)


def _of_task(
    arms: Sequence[Networks], weights: Sequence[float], metric: Metric, samples: int, seed: int
) -> tuple[Floats, float, float, float]:
    """Of one task the scores (R,), the variance by units, the share of networks and units together, the free units."""
    values, free = resampled([runs for arm in arms for runs in arm], metric, samples=samples, seed=seed)
    if values.shape[1] == 0:
        raise UserError("expected several patients, sources or pictures of each class in each fold, found too few")
    each = _weighted(weights, values.reshape(len(arms), -1, values.shape[1]))  # (R, B)
    scores = _weighted(weights, np.array([[mean_of_runs(runs, metric) for runs in arm] for arm in arms]))  # (R,)
    scale = _scale(free)
    of_mean = float(np.var(each.mean(axis=0)))
    both = (float(np.var(each, axis=1).mean()) - of_mean) / (len(each) - 1) if len(each) > 1 else 0.0
    return scores, scale * of_mean, scale * both, free.free


def _weighted(weights: Sequence[float], arms: Floats) -> Floats:
    """The weighted sum over the first axis, 0 where equal arms cancel: the rounding of a sum is no difference."""
    found: Floats = np.tensordot(np.asarray(weights, float), arms, axes=1)
    return found.round(_DIGITS) + 0.0  # which makes 0 of -0


def _scale(free: Freedom) -> float:
    return free.units / free.free
