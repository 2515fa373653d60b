from __future__ import annotations

import math

import numpy as np
import pytest

from lessismore_transforms.audit.measure import LOSS, WHOLE, Distances
from lessismore_transforms.audit.rates import collisions, rates

KINDS = ("next slice", "0 bits", "another patient")
PATIENTS = np.array(["a", "a", "b", "b"])


def distances(comparison: str, others: list[list[float]]) -> Distances:
    return Distances(comparison, "own", np.array([2.0, 2.0, 2.0, 2.0]), np.array(others))


OTHERS = [[1.0, 0.0, 3.0], [2.0, math.nan, 3.0], [2.0, 0.0, 1.0], [3.0, math.nan, 3.0]]


def test_a_neighbour_that_is_as_far_counts_whole_or_half() -> None:
    np.testing.assert_array_equal(
        collisions(distances(WHOLE, OTHERS)), [[1, 1, 0], [1, math.nan, 0], [1, 1, 1], [0, math.nan, 0]]
    )
    np.testing.assert_array_equal(
        collisions(distances(LOSS, OTHERS)), [[1, 1, 0], [0.5, math.nan, 0], [0.5, 1, 1], [0, math.nan, 0]]
    )


def test_rates_and_likeness_of_a_hand_made_case() -> None:
    next_slice, same, other = rates(distances(LOSS, OTHERS), KINDS, PATIENTS)
    assert next_slice.rate.value == 0.5
    assert (same.rate.value, same.slices) == (1.0, 2)
    assert other.rate.value == 0.25
    assert next_slice.likeness.value == pytest.approx((0.5 - 0.25) / (0.5 - 0.25))
    assert same.likeness.value == pytest.approx((1 - 0.25) / (0.5 - 0.25))
    assert math.isnan(other.likeness.value)
    assert next_slice.rate.groups == 2
    (whole, *_) = rates(distances(WHOLE, OTHERS), KINDS, PATIENTS)
    assert whole.likeness.value == pytest.approx((0.75 - 0.25) / (1 - 0.25))


def test_a_measure_that_takes_all_for_close_has_no_likeness_and_a_kind_that_nobody_has_no_rate() -> None:
    found = rates(distances(WHOLE, [[1.0, math.nan, 1.0]] * 4), KINDS, PATIENTS)
    assert [rate.neighbour for rate in found] == ["next slice", "another patient"]
    assert math.isnan(found[0].likeness.value)


def test_one_patient_has_rates_without_intervals_and_likeness() -> None:
    (found,) = rates(distances(WHOLE, [[1.0, math.nan, math.nan]] * 4), KINDS, np.array(["a"] * 4))
    assert found.rate.value == 1
    assert math.isnan(found.rate.low)
    assert math.isnan(found.likeness.value)
