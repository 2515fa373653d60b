"""What the slices of a volume are as negatives, by a slow second way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lessismore_transforms.audit.negatives import Draws, balanced, shuffled
from lessismore_transforms.audit.within_volumes import collisions_within, exact_copies, strangers

VOLUMES = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2])
MEMBERS = [np.flatnonzero(volume == VOLUMES) for volume in range(3)]
PATIENTS = np.array(["a"] * 3 + ["b"] * 4 + ["c"] * 2)


def directions(seed: int) -> torch.Tensor:
    found = torch.randn(9, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(found, dim=1)


@pytest.mark.parametrize("draws", [shuffled(7, 4), balanced(VOLUMES[[0, 1, 3, 4, 5, 7, 8]], 6)])
def test_the_worth_of_a_selection_is_the_sum_over_its_pairs(draws: Draws) -> None:
    first, second = directions(0), directions(1)
    kept = np.ones(9, bool)
    kept[[2, 6]] = False
    weight, per_other = np.zeros(9), np.zeros(9)
    weight[kept], per_other[kept] = draws.weight, draws.per_other
    control = strangers(first, second, PATIENTS)
    worth, base, pairs = 0.0, 0.0, 0.0
    for i in range(9):
        others = [j for j in range(9) if PATIENTS[j] != PATIENTS[i]]
        assert control[i] == pytest.approx(
            np.mean([float(first[i] @ second[j] > first[i] @ second[i]) for j in others])
        )
    for i in np.flatnonzero(kept):
        for j in np.flatnonzero(kept):
            if i != j and VOLUMES[i] == VOLUMES[j]:
                hit = float(first[i] @ second[j] > first[i] @ second[i])
                worth += weight[i] * per_other[i] * (hit - control[i])
                base += weight[i] * per_other[i] * control[i]
                pairs += weight[i] * per_other[i]
    within = collisions_within(first, second, MEMBERS)
    found = exact_copies(within, MEMBERS, kept, weight, per_other, control, PATIENTS)
    assert found.value == pytest.approx(worth / (0.5 - base / pairs))


def test_copies_are_worth_what_there_are_of_them_and_ties_are_halves() -> None:
    view = directions(0)[VOLUMES]  # all slices of a volume look alike
    (first, *_) = within = collisions_within(view, view, MEMBERS)
    np.testing.assert_array_equal(first, np.full((3, 3), 0.5))
    everyone = np.ones(9, bool)
    draws = shuffled(9, 5)
    found = exact_copies(within, MEMBERS, everyone, draws.weight, draws.per_other, np.zeros(9), PATIENTS)
    assert found.value == pytest.approx((3 * 2 + 4 * 3 + 2 * 1) / 9 * 4 / 8)


def test_an_encoder_that_tells_no_patients_apart_says_nothing() -> None:
    within = collisions_within(directions(0), directions(1), MEMBERS)
    draws = shuffled(9, 5)
    found = exact_copies(within, MEMBERS, np.ones(9, bool), draws.weight, draws.per_other, np.full(9, 0.5), PATIENTS)
    assert math.isnan(found.value)


def test_slices_that_are_no_closer_than_those_of_other_patients_are_worth_nothing_whatever_the_volumes() -> None:
    """Two kinds of volumes, small ones that look like few others and large ones that look like many."""
    rng = np.random.default_rng(0)
    sizes, rates = np.array([20] * 6 + [60] * 6), np.array([0.15] * 6 + [0.35] * 6)
    volumes = np.repeat(np.arange(12), sizes)
    members = [np.flatnonzero(volumes == volume) for volume in range(12)]
    n, found = len(volumes), []
    for _ in range(20):
        hits = (rng.random((n, n)) < rates[volumes][:, None]).astype(float)
        strange = volumes[:, None] != volumes
        control = (hits * strange).sum(axis=1) / strange.sum(axis=1)
        within = [hits[np.ix_(rows, rows)] for rows in members]
        for draws in (shuffled(n, 128), balanced(volumes, 32, 8)):
            everyone = np.ones(n, bool)
            found.append(exact_copies(within, members, everyone, draws.weight, draws.per_other, control, volumes))
    assert abs(np.mean([each.value for each in found])) < 0.05
    assert np.mean([each.low < 0 < each.high for each in found]) > 0.8
    assert max(abs(each.value) for each in found) < 0.6  # r0 of all slices alike would give -1.3 and 1.2
