from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from lessismore_transforms.probing.logistic import Basis, fit

PENALTIES = 10.0 ** np.arange(4, -5, -1)


def cases(classes: int, pictures: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(classes)
    x = rng.normal(size=(pictures, features)) / np.sqrt(np.arange(1, features + 1))
    scores = x[:, :classes] + 0.4 * rng.normal(size=(pictures, classes))
    return x, scores.argmax(axis=1)


@pytest.mark.parametrize(("classes", "pictures", "features"), [(2, 60, 90), (2, 90, 20), (4, 80, 100), (3, 120, 15)])
def test_all_penalties_at_once_equal_scikit_learn(classes: int, pictures: int, features: int) -> None:
    x, labels = cases(classes, pictures, features)
    basis = Basis.of(x)
    members = np.random.default_rng(0).random((pictures, len(PENALTIES))) < 0.8  # others for each regression
    found = fit(basis(x), labels, classes, members=members, penalties=PENALTIES, tolerance=1e-7, steps=20_000)
    assert found.converged.all()
    p = found.probabilities(basis(x))
    standardised = (x - basis.mean) / basis.scale
    for column, penalty in enumerate(PENALTIES):
        rows = members[:, column]
        model = LogisticRegression(C=1 / penalty, solver="newton-cg", tol=1e-10, max_iter=50_000).fit(
            standardised[rows], labels[rows]
        )
        np.testing.assert_allclose(p[:, column], model.predict_proba(standardised), atol=1e-5)


def test_weak_penalties_end_where_they_should_at_the_usual_tolerance() -> None:
    """Where pictures are told apart without an error the loss is flat: a fixed bound on its slope ends too early."""
    x, labels = cases(4, 160, 200)
    basis, members = Basis.of(x), np.arange(160)[:, None] < 120
    for penalty in (1e-1, 1e-3):
        found = fit(basis(x), labels, 4, members=members, penalties=np.array([penalty]))
        model = LogisticRegression(C=1 / penalty, solver="newton-cg", tol=1e-9, max_iter=5000)
        model.fit(((x - basis.mean) / basis.scale)[:120], labels[:120])
        losses = [
            -np.log(p[np.arange(120, 160), labels[120:]]).mean()
            for p in (found.probabilities(basis(x))[:, 0], model.predict_proba((x - basis.mean) / basis.scale))
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
        assert losses[1] > 1.5  # which it is not after a few steps


def test_two_classes_by_hand() -> None:
    """Four pictures at -1 and 1: the slope is 0 where the sum of residuals equals the penalty times the weight."""
    x, labels = np.array([[-1.0], [-1.0], [1.0], [1.0]]), np.array([0, 0, 1, 1])
    found = fit(x, labels, 2, members=np.ones((4, 1), bool), penalties=np.array([0.5]), tolerance=1e-9)
    weight, bias = found.weights[:, 0, 0]
    assert bias == pytest.approx(0)
    assert 4 / (1 + np.exp(weight)) == pytest.approx(0.5 * weight)


def test_pictures_that_are_no_members_do_not_matter() -> None:
    x, labels = cases(2, 40, 10)
    members = np.zeros((40, 1), bool)
    members[:30] = True
    one = fit(x, labels, 2, members=members, penalties=np.array([1.0]), tolerance=1e-8)
    changed = np.concatenate([x[:30], 100 * x[30:]])
    other = fit(changed, 1 - labels * (np.arange(40) >= 30) - (1 - labels) * (np.arange(40) < 30), 2,
                members=members, penalties=np.array([1.0]), tolerance=1e-8)  # fmt: skip
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-7)


def test_one_that_takes_no_more_steps_says_so() -> None:
    x, labels = cases(2, 40, 60)
    found = fit(x, labels, 2, members=np.ones((40, 2), bool), penalties=np.array([1e4, 1e-4]), steps=3)
    assert found.converged.tolist() == [True, False]


def test_the_basis_keeps_all_that_varies() -> None:
    rng = np.random.default_rng(0)
    for shape in ((12, 40), (60, 9)):
        x = rng.normal(size=shape)
        x[:, 3] = 7.0  # constant
        basis = Basis.of(x)
        assert basis.axes.shape[1] == min(shape[0] - 1, shape[1] - 1)
        values = (x - basis.mean) / basis.scale
        np.testing.assert_allclose(basis(x) @ basis.axes.T, values, atol=1e-9)
        np.testing.assert_allclose(basis.axes.T @ basis.axes, np.eye(basis.axes.shape[1]), atol=1e-9)
