"""Contrasts of arms paired by seed: by hand, by a slow second way, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm, t

from lessismore_transforms.classification.contrast import Contrast, contrast
from lessismore_transforms.classification.crossed import Variance, total
from lessismore_transforms.classification.metrics import auc
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.classification.statistics import resampled
from lessismore_transforms.errors import UserError


def predictions(scores: np.ndarray, labels: np.ndarray) -> Predictions:
    """Two pictures of each unit."""
    units = [f"u{number // 2}" for number in range(len(labels))]
    names = [f"{number:03d}" for number in range(len(labels))]
    return Predictions(
        names, units, ["test"] * len(labels), labels, np.stack([1 - scores, scores], 1), [""] * len(units)
    )


def world(
    rng: np.random.Generator, units: int, networks: int, gains: tuple[float, ...], *, own: float = 0.3
) -> list[list[list[Predictions]]]:
    """Arms whose network number r shares an opinion with network r of every arm; gains of a positive picture."""
    labels = np.repeat(np.arange(units) % 2, 2)
    unit = np.repeat(rng.normal(0, 0.7, units), 2)
    shared = np.repeat(rng.normal(0, 0.5, (networks, units)), 2, axis=1)
    lifts = rng.normal(0, own, (len(gains), networks)) + rng.normal(0, 0.5, networks)
    arms = []
    for gain, lift in zip(gains, lifts, strict=True):
        opinion = np.repeat(rng.normal(0, 0.5, units), 2)  # of all networks of the arm
        each = rng.normal(0, 0.4, (networks, len(labels)))
        scores = unit + opinion + shared + each + (gain + lift[:, None]) * labels
        arms.append([[predictions(norm.cdf(row), labels)] for row in scores])
    return arms


def test_the_variance_is_of_paired_networks_and_of_the_units_of_each_task() -> None:
    rng = np.random.default_rng(0)
    tasks = [world(rng, 30, 4, (1.0, 0.6)), world(rng, 16, 4, (0.8, 0.5))]
    found = contrast(tasks, (1, -1), auc, samples=50, seed=3)
    scores, of_units, both = np.zeros(4), [], []
    for number, (first, second) in enumerate(tasks):
        differences = [
            auc(a.labels, a.probabilities) - auc(b.labels, b.probabilities)
            for ((a,), (b,)) in zip(first, second, strict=True)
        ]
        scores += np.array(differences) / 2
        values, free = resampled([*first, *second], auc, samples=50, seed=3 + number)
        each = values[:4] - values[4:]
        n = free.units
        assert free.free == n - 1
        mean = np.var(each.mean(axis=0))
        of_units.append(n / (n - 1) * mean / 4)
        both.append(n / (n - 1) * (np.mean([np.var(row) for row in each]) - mean) / 3 / 4)
    assert found.value == pytest.approx(scores.mean(), abs=1e-12)
    spread, rest = float(np.var(scores, ddof=1)), max(0.0, sum(of_units) - sum(both))
    assert spread / 4 > sum(both)
    assert found.error == pytest.approx(math.sqrt(spread / 4 + rest), abs=1e-12)
    assert (found.networks, found.of_networks) == (4, pytest.approx(spread))
    assert found.of_units == pytest.approx(rest)
    assert rest > 0
    free = sum(of_units) ** 2 / (of_units[0] ** 2 / 29 + of_units[1] ** 2 / 15)
    assert found.freedom == pytest.approx(found.error**4 / ((spread / 4) ** 2 / 3 + rest**2 / free))
    reach = t.ppf(0.975, found.freedom) * found.error
    assert found.interval() == pytest.approx((found.value - reach, found.value + reach))
    assert found.p == pytest.approx(2 * t.sf(abs(found.value) / found.error, found.freedom))


def test_an_arm_less_itself_is_nothing_and_a_contrast_turned_round_is_its_negative() -> None:
    first, second = world(np.random.default_rng(1), 20, 3, (1.0, 0.2))
    itself = contrast([[first, first]], (1, -1), auc, samples=30)
    assert (itself.value, itself.error, itself.p) == (0, 0, 1)
    there, back = (contrast([pair], (1, -1), auc, samples=30) for pair in ([first, second], [second, first]))
    assert there.value == pytest.approx(-back.value)
    assert there.error == pytest.approx(back.error)
    same = contrast([[first, second, first, second]], (1, -1, -1, 1), auc, samples=30)
    assert (same.value, same.error, same.p) == (0, 0, 1)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_equal_arms_that_cancel_in_another_order_leave_nothing(order: tuple[int, ...]) -> None:
    """A sum of six numbers whose rounding differs by their order: without care its rounding would get a p-value."""
    tasks = [world(np.random.default_rng(seed), 14, 4, (1.0, 0.3, 0.6)) for seed in (0, 1)]
    both = [[*arms, *(arms[place] for place in order)] for arms in tasks]
    nothing = contrast(both, (1, 1, 1, -1, -1, -1), auc, samples=30)
    assert (nothing.value, nothing.error, nothing.p, nothing.p_equivalent(0.02)) == (0, 0, 1, 0)
    assert (*map(repr, nothing.interval()), nothing.detectable, nothing.networks_for(0.02)) == ("0.0", "0.0", 0, 3)


def test_arms_without_partners_and_few_seeds() -> None:
    first, second = world(np.random.default_rng(1), 20, 3, (1.0, 0.2))
    with pytest.raises(UserError, match=r"equally many networks in all arms, paired by seed, found \[2, 3\]"):
        contrast([[first, second[:2]]], (1, -1), auc)
    two = contrast([[first[:2], second[:2]]], (1, -1), auc, samples=30)
    assert math.isnan(two.p)
    assert math.isnan(two.p_equivalent(0.02))
    one = contrast([[first[:1], second[:1]]], (1, -1), auc, samples=30)
    assert one.networks == 1
    assert one.error > 0


def test_networks_that_differ_by_chance_too_little_count_as_what_units_make_them() -> None:
    """Their spread is 0, yet networks drawn with other units would differ."""
    first, second = world(np.random.default_rng(3), 24, 3, (1.0, 0.6))
    values, free = resampled([*first, *second], auc, samples=40, seed=0)
    each = values[:3] - values[3:]
    scale = free.units / free.free
    of_mean = scale * float(np.var(each.mean(axis=0)))
    both = (scale * float(np.mean([np.var(row) for row in each])) - of_mean) / 2
    found = contrast([[first, second]], (1, -1), auc, samples=40)
    calm = contrast([[[first[0]] * 3, [second[0]] * 3]], (1, -1), auc, samples=40)
    assert calm.of_networks == pytest.approx(0, abs=1e-12)  # the same network thrice shares all of it
    assert calm.error**2 == pytest.approx(calm.of_units)
    assert calm.freedom == pytest.approx(calm.freedom_of_units)
    assert found.of_networks / 3 >= both > 0
    assert found.of_units == pytest.approx(of_mean - both)


def test_equivalence_and_the_number_of_networks_by_hand() -> None:
    found = Contrast(0.01, 0.004, 50, 6, of_networks=0.0006, of_units=0.00002, freedom_of_units=40)
    assert found.p_equivalent(0.02) == pytest.approx(t.sf(2.5, 50))  # (0.02 - 0.01) / 0.004
    assert found.p_equivalent(0.005) > 0.8
    for needed in range(3, 100):  # by Student's quantiles, which more networks make smaller too
        networks = 0.0006 / needed
        freedom = (networks + 0.00002) ** 2 / (networks**2 / (needed - 1) + 0.00002**2 / 40)
        if (t.ppf(0.975, freedom) + t.ppf(0.8, freedom)) * math.sqrt(networks + 0.00002) <= 0.02:
            break
    normal = 0.0006 / ((0.02 / (norm.ppf(0.975) + norm.ppf(0.8))) ** 2 - 0.00002)
    assert found.networks_for(0.02) == needed > normal
    assert found.networks_for(0.01) is None  # the units alone hide it


@pytest.mark.parametrize("networks", [2, 3, 6])
def test_a_test_errs_as_rarely_as_it_says_whatever_outweighs(networks: int) -> None:
    """Normal parts, whose variance is drawn as it is estimated: units outweigh networks, and the reverse."""
    rng, number = np.random.default_rng(7), 20000
    for of_networks, of_units, of_both in ((0.0, 1.0, 1.0), (1.0, 1.0, 0.2), (5.0, 0.1, 0.1), (1.0, 0.1, 1.0)):
        spread = (of_networks + of_both) * rng.chisquare(networks - 1, number) / (networks - 1)
        units = (of_units + of_both / networks) * rng.chisquare(60, number) / 60
        both = units * (of_both / networks) / (of_units + of_both / networks)
        found = rng.normal(0, math.sqrt((of_networks + of_both) / networks + of_units), number)
        parts = [
            total([Variance(max(each / networks, share), networks - 1), Variance(unit - share, 60)])
            for each, unit, share in zip(spread, units, both, strict=True)
        ]
        values, freedoms = (np.array(each) for each in zip(*parts, strict=True))
        wrong = float(np.mean(np.abs(found) > t.ppf(0.975, freedoms) * np.sqrt(values)))
        assert wrong < {2: 0.125, 3: 0.08, 6: 0.06}[networks]


@pytest.mark.parametrize("gains", [(0.8, 0.8), (1.0, 0.6)])
def test_intervals_hold_the_truth(gains: tuple[float, float]) -> None:
    """With units and networks both drawn anew; the truth is the mean over many networks and units."""
    rng = np.random.default_rng(5)
    big = [world(rng, 400, 30, gains) for _ in range(8)]
    truth = float(np.mean([contrast([arms], (1, -1), auc, samples=2).value for arms in big]))
    if gains[0] == gains[1]:
        truth = 0.0
    held = []
    for _ in range(100):
        low, high = contrast([world(rng, 40, 5, gains)], (1, -1), auc, samples=60).interval()
        held.append(low <= truth <= high)
    assert np.mean(held) > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 100)
