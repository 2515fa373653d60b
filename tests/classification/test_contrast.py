"""Contrasts of arms paired by seed: by hand, by a slow second way, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm, t

from lessismore_transforms.classification.contrast import Contrast, contrast
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
    assert spread / 4 > sum(both)  # else the units alone would be taken
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
    assert (same.value, same.error) == (pytest.approx(0, abs=1e-12), pytest.approx(0, abs=1e-12))


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


def test_equivalence_and_the_number_of_networks_by_hand() -> None:
    found = Contrast(0.01, 0.004, 50, 6, of_networks=0.0006, of_units=0.00002)
    assert found.p_equivalent(0.02) == pytest.approx(t.sf(2.5, 50))  # (0.02 - 0.01) / 0.004
    assert found.p_equivalent(0.005) > 0.8
    needed = found.networks_for(0.02)
    assert needed is not None
    seen = (norm.ppf(0.975) + norm.ppf(0.8)) * np.sqrt(found.of_networks / np.arange(1, 100) + found.of_units)
    assert needed == 1 + int(np.argmax(seen <= 0.02))
    assert found.networks_for(0.01) is None  # the units alone hide it


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
