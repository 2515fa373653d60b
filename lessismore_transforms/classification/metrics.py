"""Metrics of predictions: AUC, F1, accuracy and others from labels, probabilities and weights.

All take labels (N,) and probabilities (N, C); the predicted class is the one with the largest probability (the first of
equal ones). Weights (N,) count an example more or less often and give a float. Weights (B, N), such as the counts of B
bootstrap resamples, give all B values (B,) at once; the sorting, which does not depend on them, is done once. A value
that is not defined, such as the AUC of one class alone, is nan. All agree with scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Labels: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Value: TypeAlias = Any  # float for weights (N,) or none, (B,) for weights (B, N)

_BLOCK = 2**14  # weights at once
BINS = 15  # of the calibration; Guo et al. 2017, Section 4
_SMALLEST = float(np.finfo(np.float64).eps)  # probability of which a logarithm is taken, as scikit-learn


class Metric(Protocol):
    """A function that measures predictions by one number."""

    def __call__(self, labels: Labels, probabilities: Floats, weights: Floats | None = None, /) -> Value:
        """Of labels (N,), probabilities (N, C) and weights (N,) or (B, N)."""


def score(labels: Labels, probabilities: Floats, *, positive: int = 1) -> dict[str, float | list[float]]:
    """Every number by its name; those of one class only where there are two.

    Args:
        labels: (N,) positions of the true classes.
        probabilities: (N, C).
        positive: the class of f1, precision, sensitivity, and of average_precision where there are two classes.
    """
    numbers: dict[str, float | list[float]] = {
        "auc": float(auc(labels, probabilities)),
        "accuracy": float(accuracy(labels, probabilities)),
        "f1_macro": float(f1_macro(labels, probabilities)),
        "f1_micro": float(f1_micro(labels, probabilities)),
        "f1_per_class": f1_per_class(labels, probabilities).tolist(),
        "average_precision": float(average_precision(labels, probabilities, positive=positive)),
        "brier": float(brier(labels, probabilities)),
        "ece": float(ece(labels, probabilities)),
        "nll": float(nll(labels, probabilities)),
    }
    if probabilities.shape[1] == 2:
        for name, metric in (("f1", f1), ("precision", precision), ("sensitivity", sensitivity)):
            numbers[name] = float(metric(labels, probabilities, positive=positive))
        numbers["specificity"] = float(sensitivity(labels, probabilities, positive=1 - positive))
    return numbers


def auc(labels: Labels, probabilities: Floats, weights: Floats | None = None) -> Value:
    """The area under the ROC curve: of class 1 where there are two classes, else the mean of each against the rest.

    The paper reports it, the released notebooks compute it so from softmax probabilities. One class
    without examples leaves the mean undefined. Of two classes that sum to 1 both have the same area.
    """
    classes = range(probabilities.shape[1]) if probabilities.shape[1] > 2 else [1]
    return np.mean([binary_auc(labels == c, probabilities[:, c], weights) for c in classes], axis=0)


def average_precision(
    labels: Labels, probabilities: Floats, weights: Floats | None = None, *, positive: int = 1
) -> Value:
    """The step-wise area under precision over recall: of `positive` where there are two classes, else the mean."""
    classes = range(probabilities.shape[1]) if probabilities.shape[1] > 2 else [positive]
    return np.mean([binary_average_precision(labels == c, probabilities[:, c], weights) for c in classes], axis=0)


def binary_auc(positives: NDArray[np.bool_], scores: Floats, weights: Floats | None = None) -> Value:
    """The probability that a positive scores above a negative, equals counting half: the trapezoidal area.

    Args:
        positives: (N,).
        scores: (N,) any scale.
        weights: (N,) or (B, N).
    """
    positive, negative = _ascending(positives, scores), _ascending(~positives, scores)
    below = np.searchsorted(scores[negative], scores[positive], "left")
    up_to = np.searchsorted(scores[negative], scores[positive], "right")

    def area(w: Floats) -> Any:
        total, own = _running(w[..., negative]), w[..., positive]
        pairs = (own * (total[..., below] + total[..., up_to])).sum(axis=-1) / 2
        return _ratio(pairs, own.sum(axis=-1) * total[..., -1], np.nan)

    return _by_blocks(area, _weights(positives, weights))


def binary_average_precision(positives: NDArray[np.bool_], scores: Floats, weights: Floats | None = None) -> Value:
    """The mean over positives of the precision among all that score at least as high.

    Args:
        positives: (N,).
        scores: (N,) any scale.
        weights: (N,) or (B, N).
    """
    falling = -scores
    positive, negative = _ascending(positives, falling), _ascending(~positives, falling)
    true = np.searchsorted(falling[positive], falling[positive], "right")
    false = np.searchsorted(falling[negative], falling[positive], "right")

    def area(w: Floats) -> Any:
        tp, fp, own = _running(w[..., positive])[..., true], _running(w[..., negative])[..., false], w[..., positive]
        return _ratio((own * _ratio(tp, tp + fp, 0.0)).sum(axis=-1), own.sum(axis=-1), np.nan)

    return _by_blocks(area, _weights(positives, weights))


def confusion(labels: Labels, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """How often each class (rows) was taken for each (columns): (C, C), or (B, C, C) for weights (B, N)."""
    classes = probabilities.shape[1]
    predicted = np.eye(classes)[probabilities.argmax(axis=1)]  # (N, C)
    rows = _weights(labels, weights)
    return np.stack([rows[..., labels == c] @ predicted[labels == c] for c in range(classes)], axis=-2)


def accuracy(labels: Labels, probabilities: Floats, weights: Floats | None = None) -> Value:
    """The share of examples whose class was predicted."""
    return _mean(probabilities.argmax(axis=1) == labels, weights)


def f1_per_class(labels: Labels, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """2 TP / (2 TP + FP + FN) of each class, 0 for one neither present nor predicted: (C,) or (B, C)."""
    matrix = confusion(labels, probabilities, weights)
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    shares: Floats = _ratio(2 * hits, matrix.sum(axis=-1) + matrix.sum(axis=-2), 0.0)
    return shares


def f1(labels: Labels, probabilities: Floats, weights: Floats | None = None, *, positive: int = 1) -> Value:
    """F1 of the class `positive`; the notebooks' for COVID-19 and Brain is that of class 1."""
    return f1_per_class(labels, probabilities, weights)[..., positive][()]


def f1_macro(labels: Labels, probabilities: Floats, weights: Floats | None = None) -> Value:
    """The mean of the F1 of all classes, whether present or not."""
    return f1_per_class(labels, probabilities, weights).mean(axis=-1)


def f1_micro(labels: Labels, probabilities: Floats, weights: Floats | None = None) -> Value:
    """F1 of all decisions together, the notebooks' for OrgMNIST.

    A wrong example is a false positive of one class and a false negative of another: it equals the accuracy.
    """
    return accuracy(labels, probabilities, weights)


def precision(labels: Labels, probabilities: Floats, weights: Floats | None = None, *, positive: int = 1) -> Value:
    """The share of examples predicted as `positive` that are; 0 where none was predicted."""
    matrix = confusion(labels, probabilities, weights)
    return _ratio(matrix[..., positive, positive], matrix[..., positive].sum(axis=-1), 0.0)


def sensitivity(labels: Labels, probabilities: Floats, weights: Floats | None = None, *, positive: int = 1) -> Value:
    """The share of examples of `positive` that were predicted; with the other of two classes, the specificity."""
    matrix = confusion(labels, probabilities, weights)
    return _ratio(matrix[..., positive, positive], matrix[..., positive, :].sum(axis=-1), np.nan)


def brier(labels: Labels, probabilities: Floats, weights: Floats | None = None) -> Value:
    """The mean squared error of the probabilities (Brier 1950).

    Two classes: of class 1, from 0 to 1. More: the sum over all classes, from 0 to 2, as Brier defined it.
    """
    if probabilities.shape[1] == 2:
        return _mean((probabilities[:, 1] - labels) ** 2, weights)
    truth = np.eye(probabilities.shape[1])[labels]
    return _mean(((probabilities - truth) ** 2).sum(axis=1), weights)


def nll(labels: Labels, probabilities: Floats, weights: Floats | None = None) -> Value:
    """The mean negative logarithm of the true class's probability, in nats: the cross-entropy."""
    return _mean(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], _SMALLEST)), weights)


def ece(labels: Labels, probabilities: Floats, weights: Floats | None = None) -> Value:
    """The expected calibration error: the mean distance of confidence and accuracy (Guo et al. 2017, equation 3)."""
    weight, confidence, hits = np.moveaxis(reliability(labels, probabilities, weights), -2, 0)  # (..., BINS) each
    return _ratio(np.abs(hits - confidence).sum(axis=-1), weight.sum(axis=-1), np.nan)


def reliability(labels: Labels, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Sums over bins of equal width of the largest probability, lower bounds excluded: (3, BINS) or (B, 3, BINS).

    The rows are the weight, the weighted confidence (largest probability) and the weight of the right predictions.
    """
    top = probabilities.max(axis=1)
    edges = np.linspace(0, 1, BINS + 1)[1:-1]
    member = np.eye(BINS)[np.searchsorted(edges, top, "left")]  # (N, BINS)
    right = probabilities.argmax(axis=1) == labels
    rows = _weights(labels, weights)
    return np.stack([rows @ member, rows * top @ member, rows * right @ member], axis=-2)


METRICS: dict[str, Metric] = {  # F1 of another class than 1: functools.partial(f1, positive=0)
    "auc": auc,
    "accuracy": accuracy,
    "f1_macro": f1_macro,
    "f1_micro": f1_micro,
    "f1": f1,
}


def _running(values: Floats) -> Floats:
    """The running sums (..., N + 1) of values (..., N), from 0."""
    return np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)


def _by_blocks(function: Callable[[Floats], Any], weights: Floats) -> Value:
    """A function of weights (..., N), of some rows at a time, so that what it makes of them stays in the cache."""
    if weights.ndim == 1:
        return function(weights)
    rows = max(1, _BLOCK // max(1, weights.shape[1]))
    return np.concatenate([np.atleast_1d(function(weights[n : n + rows])) for n in range(0, len(weights), rows)])


def _ascending(chosen: NDArray[np.bool_], scores: Floats) -> NDArray[np.int64]:
    """Positions of the chosen, lowest score first."""
    places = np.flatnonzero(chosen)
    return places[np.argsort(scores[places], kind="stable")]


def _weights(like: NDArray[Any], weights: Floats | None) -> Floats:
    return np.ones(len(like)) if weights is None else np.asarray(weights, dtype=np.float64)


def _mean(values: NDArray[Any], weights: Floats | None) -> Value:
    rows = _weights(values, weights)
    return _ratio(rows @ values, rows.sum(axis=-1), np.nan)


def _ratio(above: Any, below: Any, undefined: float) -> Any:
    """A quotient, `undefined` where it would be by zero."""
    return np.divide(above, below, out=np.full(np.shape(below), undefined), where=np.asarray(below) > 0)[()]
