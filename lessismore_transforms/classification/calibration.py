"""Probabilities and decisions adjusted on the validation split: temperature, and the threshold of a sensitivity.

Temperature scaling (Guo et al. 2017, "On calibration of modern neural networks", Section 4.2) divides the logits by one
number, which leaves the order of classes as it is. Log-probabilities serve as logits: they differ by a constant of each
picture. The threshold is for two classes; both are chosen on the validation split alone, and judged on the test split.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.classification.metrics import accuracy, brier, ece, nll, precision, sensitivity
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.classification.statistics import bootstrap_interval
from lessismore_transforms.errors import UserError
from lessismore_transforms.options import is_number
from lessismore_transforms.wording import counted

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]
COLDEST, HOTTEST = 0.05, 100.0  # temperatures
_SMALLEST = float(np.finfo(np.float64).eps)  # probability of which a logarithm is taken, as in `metrics.nll`
_FLAT = 1e-9  # slope of the loss, in nats, below which it does not change


class Temperature(NamedTuple):
    """A temperature and what there is to say of it.

    Attributes:
        value: that divides the logits; above 1 it makes a network less sure.
        note: why it is no minimum of the loss; "" where it is one.
    """

    value: float
    note: str = ""


class Threshold(NamedTuple):
    """A threshold of the probability of the positive class and what there is to say of it.

    Attributes:
        value: pictures with at least this probability are called positive; nan where there is none.
        note: what stands in the way, or what it amounts to; "" for nothing.
    """

    value: float
    note: str = ""


def fit_temperature(labels: Labels, probabilities: Floats) -> Temperature:
    """The temperature with the smallest mean negative log-likelihood.

    The loss is convex in the inverse of the temperature, whose slope is the mean of what the softmax expects of the
    logits less the true class's. Where it falls up to a bound, the bound is taken.

    Args:
        labels: (N,), of the validation split.
        probabilities: (N, C).
    """
    from scipy.optimize import brentq

    logits = _logits(probabilities)
    true = logits[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        return float(np.mean((_softmax(inverse * logits) * logits).sum(axis=1) - true))

    hot, cold = slope(1 / HOTTEST), slope(1 / COLDEST)
    if max(abs(hot), abs(cold)) < _FLAT:
        return Temperature(1.0, "all probabilities of the validation split are alike: no temperature changes them")
    if hot >= 0:
        return Temperature(
            HOTTEST,
            f"at its upper bound {HOTTEST:g}: the probabilities of the validation split tell next to nothing of the "
            "class",
        )
    if cold <= 0:
        return Temperature(
            COLDEST,
            f"at its lower bound {COLDEST:g}: next to no picture of the validation split is wrong, which does not tell "
            "how often others are",
        )
    return Temperature(1 / float(brentq(slope, 1 / HOTTEST, 1 / COLDEST, xtol=1e-12)))


def at_temperature(probabilities: Floats, temperature: float) -> Floats:
    """The probabilities (N, C) that logits divided by a temperature give; those of 1 are the given ones."""
    return _softmax(_logits(probabilities) / temperature)


def fit_threshold(labels: Labels, scores: Floats, *, positive: int, target: float) -> Threshold:
    """The highest threshold at which at least `target` of the positives score as high or higher.

    Args:
        labels: (N,), of the validation split.
        scores: (N,), probabilities of the positive class.
        positive: its label.
        target: sensitivity, above 0 and up to 1.
    """
    of_positives, others = np.sort(scores[labels == positive])[::-1], scores[labels != positive]
    if len(of_positives) == 0:
        return Threshold(math.nan, "the validation split has no picture of the positive class: there is no threshold")
    needed = math.ceil(round(target * len(of_positives), 9))  # 19 of 20 for 0.95, whatever the rounding
    value = float(of_positives[needed - 1])
    if len(others) and np.all(others >= value):
        return Threshold(value, "at this threshold every picture of the validation split is called positive")
    if needed == len(of_positives) and target < 1:
        return Threshold(
            value,
            f"the validation split has {counted(len(of_positives), 'positive')}, too few to miss one: the threshold is "
            "that of a sensitivity of 1",
        )
    return Threshold(value)


def check_target(target: float | None, classes: int) -> None:
    """Refuse a sensitivity that cannot be asked for.

    Raises:
        UserError: it is no share, or there are more than two classes.
    """
    if target is None:
        return
    if not is_number(target, int, float) or not 0 < target <= 1:
        raise UserError(f"expected a target_sensitivity above 0, up to 1, found {target!r}; 0.95 is usual")
    if classes != 2:
        raise UserError(
            f"expected two classes for a target_sensitivity, found {classes}: leave it out, as one threshold parts two "
            "classes only"
        )


def calibrated(val: Predictions, test: Predictions) -> dict[str, Any]:
    """The temperature fitted on the validation split, and ece, nll and brier of the test split with it."""
    found = fit_temperature(val.labels, val.probabilities)
    changed = at_temperature(test.probabilities, found.value)
    scores = {name: float(each(test.labels, changed)) for name, each in (("ece", ece), ("nll", nll), ("brier", brier))}
    return {"temperature": found.value, **scores, **_noted(found.note)}


def operating_point(
    val: Predictions, test: Predictions, *, positive: int, target: float, samples: int = 1000, level: float = 0.95
) -> dict[str, Any]:
    """The threshold chosen on the validation split, and what it gives on the test split, with intervals by unit.

    Args:
        val: of two classes.
        test: of the same.
        positive: label of the class that is to be found.
        target: sensitivity on the validation split.
        samples: resamples of each interval.
        level: of the intervals.

    Returns:
        threshold, target_sensitivity, sensitivity, specificity, precision, accuracy, intervals of the first two of
        these, and what the threshold gave on the validation split; a note where there is something to say.
    """
    found = fit_threshold(val.labels, val.probabilities[:, positive], positive=positive, target=target)
    told: dict[str, Any] = {"threshold": found.value, "target_sensitivity": target, **_noted(found.note)}
    if math.isnan(found.value):
        return told
    at_val, at_test = (_decided(each, positive, found.value) for each in (val, test))
    intervals = {
        name: list(_share_interval(at_test, wanted, samples, level))
        for name, wanted in (("sensitivity", positive), ("specificity", 1 - positive))
    }
    own = {name: _rates(at_val, positive)[name] for name in ("sensitivity", "specificity")}
    return {**told, **_rates(at_test, positive), "intervals": {"level": level, **intervals}, "val": own}


def _rates(decided: Predictions, positive: int) -> dict[str, float]:
    labels, hard = decided.labels, decided.probabilities
    return {
        "sensitivity": float(sensitivity(labels, hard, positive=positive)),
        "specificity": float(sensitivity(labels, hard, positive=1 - positive)),
        "precision": float(precision(labels, hard, positive=positive)),
        "accuracy": float(accuracy(labels, hard)),
    }


def _share_interval(decided: Predictions, label: int, samples: int, level: float) -> tuple[float, float]:
    """The interval of the share of right decisions among the pictures of a class, by their units; nan without any."""
    rows = np.flatnonzero(decided.labels == label).tolist()
    if not rows:
        return math.nan, math.nan
    return bootstrap_interval([decided.rows(rows)], accuracy, samples=samples, level=level)


def _decided(predictions: Predictions, positive: int, threshold: float) -> Predictions:
    """The predictions as decisions: 1 for the class that is chosen, 0 for the other."""
    chosen = np.where(predictions.probabilities[:, positive] >= threshold, positive, 1 - positive)
    return replace(predictions, probabilities=np.eye(2)[chosen])


def _noted(note: str) -> dict[str, str]:
    return {"note": note} if note else {}


def _logits(probabilities: Floats) -> Floats:
    logits: Floats = np.log(np.maximum(probabilities, _SMALLEST))
    return logits


def _softmax(logits: Floats) -> Floats:
    above = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = above / above.sum(axis=1, keepdims=True)
    return shares
