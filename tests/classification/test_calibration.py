"""Temperature and threshold: by hand, by scipy, by trying all thresholds, and where there is next to nothing to fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from lessismore_transforms.classification.calibration import (
    COLDEST,
    HOTTEST,
    at_temperature,
    calibrated,
    check_target,
    fit_temperature,
    fit_threshold,
    operating_point,
)
from lessismore_transforms.classification.metrics import auc, brier, ece, nll
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.classification.statistics import exact_interval, log_odds_interval


def drawn(
    count: int, classes: int, *, sureness: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels drawn from softmax(logits), and probabilities of logits that are too sure by a factor."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(count, classes))
    true = softmax(logits, axis=1)
    labels = (rng.random((count, 1)) > true.cumsum(axis=1)).sum(axis=1)
    return labels, softmax(sureness * logits, axis=1), true


def predictions(labels: np.ndarray, p: np.ndarray, patients: list[str] | None = None) -> Predictions:
    names = [f"{n}" for n in range(len(labels))]
    return Predictions(names, patients or [""] * len(names), ["test"] * len(names), np.asarray(labels, np.int64), p)


def two(labels: list[int], scores: list[float]) -> Predictions:
    p = np.array(scores)
    return predictions(np.array(labels), np.stack([1 - p, p], axis=1))


@pytest.mark.parametrize(("classes", "sureness"), [(2, 3.0), (2, 0.4), (5, 2.0)])
def test_the_temperature_is_that_of_scipys_minimum_and_undoes_what_was_too_sure(classes: int, sureness: float) -> None:
    labels, p, true = drawn(2000, classes, sureness=sureness)

    def loss(log: float) -> float:
        scaled = softmax(np.log(p) / math.exp(log), axis=1)
        return -float(np.mean(np.log(scaled[np.arange(len(labels)), labels])))

    expected = math.exp(minimize_scalar(loss, bounds=(math.log(COLDEST), math.log(HOTTEST)), method="bounded").x)
    found = fit_temperature(labels, p)
    assert found == (pytest.approx(expected, rel=1e-4), "")
    assert found.value == pytest.approx(sureness, rel=0.12)
    np.testing.assert_allclose(at_temperature(p, sureness), true, atol=1e-12)
    np.testing.assert_allclose(at_temperature(p, 1.0), p, atol=1e-15)


def test_a_temperature_by_hand() -> None:
    """Three of four pictures are right, all at odds of 9 to 1: at 3 to 1 they are as sure as right, ln 9 / ln 3 = 2."""
    labels, p = np.array([0, 0, 0, 1]), np.tile([0.9, 0.1], (4, 1))
    found = fit_temperature(labels, p)
    assert found == (pytest.approx(2.0, abs=1e-9), "")
    np.testing.assert_allclose(at_temperature(p, found.value), np.tile([0.75, 0.25], (4, 1)), atol=1e-12)
    assert ece(labels, at_temperature(p, found.value)) == pytest.approx(0, abs=1e-12)


def test_temperatures_at_their_bounds() -> None:
    right, sure = np.array([0, 1, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.45, 0.55]])
    found = fit_temperature(right, sure)
    assert found.value == COLDEST
    assert found.note.startswith("at its lower bound 0.05: next to no picture of the validation split is wrong")
    found = fit_temperature(1 - right, sure)
    assert found.value == HOTTEST
    assert found.note.startswith(
        "at its upper bound 100: the probabilities of the validation split tell next to nothing"
    )
    alike = fit_temperature(right, np.full((4, 2), 0.5))
    assert alike.value == 1
    assert "are alike" in alike.note
    certain = fit_temperature(right, np.eye(2)[[0, 1, 0, 0]])  # one picture is wrong for sure, of four
    assert 1 < certain.value < HOTTEST
    assert math.isfinite(nll(right, at_temperature(np.eye(2)[[0, 1, 0, 0]], certain.value)))


def test_the_test_split_is_scored_with_the_temperature_of_the_validation_split() -> None:
    (labels, p, _), (others, q, _) = drawn(400, 3, sureness=3.0), drawn(300, 3, sureness=3.0, seed=1)
    found = calibrated(predictions(labels, p), predictions(others, q))
    temperature = fit_temperature(labels, p).value
    changed = softmax(np.log(q) / temperature, axis=1)
    assert found.keys() == {"temperature", "ece", "nll", "brier"}
    assert found["temperature"] == temperature
    assert found["nll"] == pytest.approx(-np.mean(np.log(changed[np.arange(300), others])), rel=1e-9)
    assert found["brier"] == pytest.approx(
        np.mean([np.sum((row - np.eye(3)[k]) ** 2) for row, k in zip(changed, others, strict=True)])
    )
    assert found["ece"] == pytest.approx(slow_ece(others, changed), abs=1e-12)
    assert found["ece"] < 0.5 * ece(others, q)
    assert found["nll"] < nll(others, q)
    assert found["brier"] < brier(others, q)
    assert auc(others, changed) == pytest.approx(auc(others, q), abs=0.02)  # the order of each class hardly changes


def slow_ece(labels: np.ndarray, p: np.ndarray) -> float:
    """Guo et al. 2017, equation 3, bin by bin and picture by picture."""
    total = 0.0
    for number in range(15):
        inside = [n for n in range(len(labels)) if number / 15 < max(p[n]) <= (number + 1) / 15]
        if inside:
            right = sum(int(np.argmax(p[n])) == labels[n] for n in inside) / len(inside)
            total += abs(right - sum(max(p[n]) for n in inside) / len(inside)) * len(inside) / len(labels)
    return total


@pytest.mark.parametrize("target", [0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("decimals", [1, 6])
@pytest.mark.parametrize("positive", [0, 1])
def test_the_threshold_is_the_highest_of_all_that_reach_the_sensitivity(
    target: float, decimals: int, positive: int
) -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(2, size=70)
    scores = np.round(1 / (1 + np.exp(-rng.normal(size=70) - (labels == positive))), decimals)  # with ties for one
    found = fit_threshold(labels, scores, positive=positive, target=target).value
    reach = [t for t in np.unique(scores) if np.mean(scores[labels == positive] >= t) >= target - 1e-12]
    assert found == max(reach)


def test_thresholds_by_hand_and_where_there_is_none() -> None:
    labels = np.array([1] * 20 + [0] * 5)
    scores = np.concatenate([np.linspace(0.9, 0.52, 20), [0.1, 0.2, 0.3, 0.53, 0.95]])
    assert fit_threshold(labels, scores, positive=1, target=0.95) == (pytest.approx(0.54), "")  # the 19th of 20
    few = fit_threshold(labels[10:], scores[10:], positive=1, target=0.95)
    assert few.value == pytest.approx(0.52)
    assert few.note.startswith("the validation split has 10 positives, too few to miss one")
    none = fit_threshold(np.zeros(3, int), np.array([0.1, 0.2, 0.3]), positive=1, target=0.9)
    assert math.isnan(none.value)
    assert none.note.startswith("the validation split has no picture of the positive class")
    tied = fit_threshold(labels, np.full(25, 0.5), positive=1, target=0.9)
    assert tied == (0.5, "at this threshold every picture of the validation split is called positive")
    only = fit_threshold(np.ones(20, int), scores[:20], positive=1, target=0.9)
    assert only == (pytest.approx(scores[17]), "")


@pytest.mark.parametrize(("count", "target"), [(10, 0.9), (20, 0.95), (100, 0.99), (1000, 0.999), (5, 0.8)])
def test_one_positive_may_be_missed_where_the_target_leaves_one(count: int, target: float) -> None:
    scores = np.linspace(0.9, 0.5, count + 1)
    labels = np.array([1] * count + [0])
    assert fit_threshold(labels, scores, positive=1, target=target) == (pytest.approx(scores[count - 2]), "")
    more = fit_threshold(labels, scores, positive=1, target=1 - 0.9 * (1 - target))
    assert more.value == pytest.approx(scores[count - 1])
    assert "too few to miss one: the threshold is that of a sensitivity of 1" in more.note


def test_the_operating_point_by_hand() -> None:
    val = two([1, 1, 1, 1, 0, 0], [0.9, 0.8, 0.6, 0.2, 0.7, 0.1])
    labels = [1] * 8 + [0] * 6
    test = two(labels, [0.95, 0.9, 0.7, 0.65, 0.6, 0.59, 0.3, 0.8, 0.61, 0.6, 0.5, 0.1, 0.2, 0.3])
    test.patients[:] = [f"p{n // 2}" for n in range(14)]
    found = operating_point(val, test, positive=1, target=0.75, samples=60)
    assert found["threshold"] == 0.6  # three of four, as asked for
    assert found["val"] == {"sensitivity": 0.75, "specificity": 0.5}
    assert (found["target_sensitivity"], found["sensitivity"], found["specificity"]) == (0.75, 6 / 8, 4 / 6)
    assert (found["precision"], found["accuracy"]) == (6 / 8, 10 / 14)
    right = np.array([2, 2, 1, 1])  # of the two pictures of each patient with the class
    draws = np.random.default_rng(0).integers(4, size=(60, 4))
    error = np.std(right[draws].sum(axis=1) / 8) * math.sqrt(4 / 3)
    ends = [*log_odds_interval(0.75, error, 3, 0.95), *exact_interval(0.75, 4, 0.95)]  # draws reach 1
    assert found["intervals"]["sensitivity"] == pytest.approx([min(ends), max(ends)], abs=1e-12)
    low, high = found["intervals"]["specificity"]
    assert 0 <= low < 4 / 6 < high <= 1
    assert found["intervals"]["level"] == 0.95
    mirrored = operating_point(_swapped(val), _swapped(test), positive=0, target=0.75, samples=60)
    assert mirrored == found


def _swapped(given: Predictions) -> Predictions:
    return Predictions(given.image_ids, given.patients, given.splits, 1 - given.labels, given.probabilities[:, ::-1])


def test_operating_points_where_a_class_is_missing() -> None:
    val, test = two([1, 1, 0], [0.9, 0.4, 0.6]), two([0, 0, 0], [0.1, 0.5, 0.3])
    found = operating_point(val, test, positive=1, target=0.5, samples=10)
    assert math.isnan(found["sensitivity"])
    assert all(map(math.isnan, found["intervals"]["sensitivity"]))
    assert found["specificity"] == 1
    none = operating_point(test, val, positive=1, target=0.5, samples=10)
    assert none.keys() == {"threshold", "target_sensitivity", "note"}
    assert math.isnan(none["threshold"])


def test_a_sensitivity_that_cannot_be_asked_for() -> None:
    check_target(None, 11)
    check_target(1.0, 2)
    for target in (0, 1.1, "0.9", True):
        with pytest.raises(ValueError, match=r"a target_sensitivity above 0, up to 1, found .*; 0.95 is usual"):
            check_target(target, 2)
    with pytest.raises(ValueError, match="expected two classes for a target_sensitivity, found 11: leave it out"):
        check_target(0.9, 11)
