from __future__ import annotations

import math
import warnings
from functools import partial

import numpy as np
import pytest
from sklearn import metrics as sk

from lessismore_transforms.classification import metrics
from lessismore_transforms.classification.metrics import METRICS, binary_auc, score


def examples(classes: int, number: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities with many ties of which the last class is never the largest, and weights with zeros."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, number)
    votes = np.stack([rng.multinomial(12, [1 / classes] * classes) for _ in range(number)]).astype(float)
    votes[np.arange(number), labels] += 3
    if classes > 2:
        votes[:, -1] = np.minimum(votes[:, -1], votes[:, 0])
    probabilities = votes / votes.sum(axis=1, keepdims=True)
    return labels, probabilities, rng.integers(0, 4, number) * rng.random(number)


def by_sklearn(labels: np.ndarray, p: np.ndarray, w: np.ndarray | None) -> dict[str, float]:
    classes, predicted = p.shape[1], p.argmax(axis=1)
    f1 = partial(sk.f1_score, labels, predicted, sample_weight=w, zero_division=0)
    truth = np.eye(classes)[labels]
    expected = {
        "auc": sk.roc_auc_score(labels, p[:, 1] if classes == 2 else p, multi_class="ovr", sample_weight=w),
        "accuracy": sk.accuracy_score(labels, predicted, sample_weight=w),
        "f1_macro": f1(average="macro"),
        "f1_micro": f1(average="micro"),
        "brier": sk.brier_score_loss(labels, p[:, 1], sample_weight=w)
        if classes == 2
        else np.average(((p - truth) ** 2).sum(axis=1), weights=w),
        "nll": sk.log_loss(labels, p, sample_weight=w, labels=range(classes)),
    }
    if classes == 2:
        for positive in (0, 1):
            name = partial("{}{}".format, positive)
            expected |= {
                name("f1"): f1(pos_label=positive),
                name("precision"): sk.precision_score(labels, predicted, pos_label=positive, sample_weight=w),
                name("sensitivity"): sk.recall_score(labels, predicted, pos_label=positive, sample_weight=w),
                name("average_precision"): sk.average_precision_score(
                    labels == positive, p[:, positive], sample_weight=w
                ),
            }
    else:
        expected["average_precision"] = sk.average_precision_score(truth, p, sample_weight=w)
    return expected


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [2, 5])
def test_scikit_learn_agrees(classes: int, weighted: bool):
    labels, probabilities, weights = examples(classes)
    w = weights if weighted else None
    for name, value in by_sklearn(labels, probabilities, w).items():
        metric = partial(getattr(metrics, name.lstrip("01")), **({"positive": int(name[0])} if name[0] in "01" else {}))
        assert metric(labels, probabilities, w) == pytest.approx(value, abs=1e-12), name
    matrix = sk.confusion_matrix(labels, probabilities.argmax(axis=1), sample_weight=w, labels=range(classes))
    np.testing.assert_allclose(metrics.confusion(labels, probabilities, w), matrix, rtol=0, atol=1e-12 * len(labels))
    per_class = sk.f1_score(
        labels, probabilities.argmax(axis=1), sample_weight=w, average=None, zero_division=0, labels=range(classes)
    )
    np.testing.assert_allclose(metrics.f1_per_class(labels, probabilities, w), per_class, rtol=0, atol=1e-12)
    assert classes == 2 or per_class[-1] == 0  # the case of a class that is never predicted


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", [*METRICS, "average_precision", "brier", "nll", "ece", "sensitivity", "precision"])
def test_many_weights_at_once_are_repeated_examples(name: str, classes: int):
    labels, probabilities, _ = examples(classes, 60)
    metric = getattr(metrics, name)
    counts = np.stack([np.bincount(draw, minlength=60) for draw in np.random.default_rng(1).integers(0, 60, (4, 60))])
    at_once = metric(labels, probabilities, counts)
    assert at_once.shape == (4,)
    for value, count in zip(at_once, counts, strict=True):
        repeated = np.repeat(np.arange(60), count)
        assert value == pytest.approx(metric(labels[repeated], probabilities[repeated]), abs=1e-12)
        alone = metric(labels, probabilities, count)
        assert isinstance(alone, float)
        assert value == pytest.approx(alone, abs=1e-12)


def test_auc_of_four_examples_by_hand():
    scores = np.array([0.1, 0.4, 0.4, 0.8])
    positives = np.array([False, False, True, True])
    assert binary_auc(positives, scores) == 0.875  # pairs: 1, 1/2, 1, 1
    assert binary_auc(positives, -scores) == 0.125
    assert binary_auc(positives, scores, np.array([0, 2, 3, 0])) == 0.5
    assert binary_auc(positives, np.exp(scores)) == 0.875


def test_two_classes_have_one_auc():
    labels, probabilities, weights = examples(2)
    other = metrics.auc(1 - labels, probabilities[:, ::-1], weights)
    assert metrics.auc(labels, probabilities, weights) == pytest.approx(other, abs=1e-12)


def test_calibration_by_hand():
    # Bins of a fifteenth: 0.8 is the upper bound of the twelfth, which holds 0.75 too; 0.9 and 0.93 share another.
    top = np.array([0.8, 0.75, 0.9, 0.93])
    labels = np.array([0, 1, 0, 0])
    probabilities = np.stack([top, 1 - top], axis=1)
    weight, confidence, hits = metrics.reliability(labels, probabilities)
    assert weight.nonzero()[0].tolist() == [11, 13]
    np.testing.assert_allclose(confidence[[11, 13]], [1.55, 1.83])
    assert hits[[11, 13]].tolist() == [1, 2]
    assert metrics.ece(labels, probabilities) == pytest.approx((abs(1 - 1.55) + abs(2 - 1.83)) / 4)
    assert metrics.ece(labels, probabilities, np.array([1, 0, 0, 0])) == pytest.approx(0.2)


def test_what_is_not_defined_is_nan_and_nothing_warns():
    labels, probabilities, _ = examples(3, 30)
    labels = np.minimum(labels, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(metrics.auc(labels, probabilities))
        assert math.isnan(metrics.average_precision(labels, probabilities))
        assert math.isnan(metrics.sensitivity(labels, probabilities, positive=2))
        assert math.isnan(metrics.accuracy(labels, probabilities, np.zeros(30)))
        assert math.isnan(metrics.auc(np.ones(3, int), np.full((3, 2), 0.5)))
        assert metrics.f1(labels, np.eye(3)[labels], positive=2) == 0
        assert metrics.nll(np.array([0]), np.array([[0.0, 1.0]])) == pytest.approx(-math.log(2**-52))


def test_score_names_everything():
    labels, probabilities, _ = examples(2)
    found = score(labels, probabilities, positive=0)
    predicted = probabilities.argmax(axis=1)
    report = sk.classification_report(labels, predicted, output_dict=True)
    assert found["f1"] == pytest.approx(report["0"]["f1-score"])
    assert found["precision"] == pytest.approx(report["0"]["precision"])
    assert found["sensitivity"] == pytest.approx(report["0"]["recall"])
    assert found["specificity"] == pytest.approx(report["1"]["recall"])
    assert found["f1_per_class"] == pytest.approx([report["0"]["f1-score"], report["1"]["f1-score"]])
    common = {"auc", "accuracy", "f1_macro", "f1_micro", "f1_per_class", "average_precision", "brier", "ece", "nll"}
    assert set(found) == common | {"f1", "precision", "sensitivity", "specificity"}
    assert set(score(*examples(4)[:2])) == common
    assert all(type(value) is float for name, value in found.items() if name != "f1_per_class")
    assert score(labels, np.eye(2)[labels])["auc"] == 1


def test_multi_class_brier_is_the_sum_over_classes():
    assert metrics.brier(np.array([0]), np.array([[0.0, 1.0, 0.0]])) == 2
    assert metrics.brier(np.array([0]), np.array([[0.0, 1.0]])) == 1
