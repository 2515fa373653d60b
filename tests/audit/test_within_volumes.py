"""What the slices of a volume are as negatives, by a slow second way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lessismore_transforms.audit.negatives import Draws, balanced, shuffled
from lessismore_transforms.audit.within_volumes import collisions_within, exact_copies

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
    control = np.array([0, 0, 1, 0, 0.5, 0, 0, 0, math.nan])
    base = control[:8].mean()
    worth = 0.0
    for i in np.flatnonzero(kept):
        for j in np.flatnonzero(kept):
            if i != j and VOLUMES[i] == VOLUMES[j]:
                closer = float(first[i] @ second[j] > first[i] @ second[i])
                worth += weight[i] * per_other[i] * (closer - base) / (0.5 - base)
    within = collisions_within(first, second, MEMBERS)
    found = exact_copies(within, MEMBERS, kept, weight, per_other, control, PATIENTS)
    assert found.value == pytest.approx(worth)
    assert found.low < found.value < found.high


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
