from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from lessismore_transforms.classification.splits import stratified_folds
from lessismore_transforms.probing import penalty as penalty_module
from lessismore_transforms.probing.logistic import Basis
from lessismore_transforms.probing.penalty import UNKNOWN_PENALTY, choose_penalties

GRID = (1000.0, 10.0, 0.1)


def pictures() -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 30))
    labels = (x[:, 0] + x[:, 1] + 0.5 * rng.normal(size=60) > 0).astype(np.int64)
    return x, labels, [f"{label}{number // 3}" for number, label in enumerate(labels)]


def test_the_loss_of_each_penalty_is_that_of_scikit_learn_over_the_same_inner_folds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, labels, groups = pictures()
    basis = Basis.of(x)
    known = np.stack([np.ones(60, bool), np.arange(60) < 45], axis=1)
    quick = choose_penalties(basis(x), labels, groups, 2, known=known, folds=4, penalties=GRID, seed=2)
    monkeypatch.setattr(penalty_module, "_SEARCH", 1e-6)
    found = choose_penalties(basis(x), labels, groups, 2, known=known, folds=4, penalties=GRID, seed=2)
    assert [choice.penalty for choice in quick] == [choice.penalty for choice in found]
    standardised = (x - basis.mean) / basis.scale
    for choice, rows in zip(found, (np.arange(60), np.arange(45)), strict=True):
        dealt = stratified_folds(labels[rows].tolist(), [groups[row] for row in rows], 4, 2)
        for penalty, loss in zip(GRID, choice.losses, strict=True):
            p = np.empty((len(rows), 2))
            for fold in range(4):
                out = dealt == fold
                model = LogisticRegression(C=1 / penalty, tol=1e-9, max_iter=20_000)
                model.fit(standardised[rows[~out]], labels[rows[~out]])
                p[out] = model.predict_proba(standardised[rows[out]])
            assert loss == pytest.approx(log_loss(labels[rows], p), rel=1e-4)
        assert choice.penalty == GRID[int(choice.losses.argmin())]
        assert choice.folds == 4


def test_there_is_no_choice_where_a_class_has_one_group() -> None:
    x, labels, groups = pictures()
    known = np.zeros((60, 1), bool)
    for label in (0, 1):
        group = groups[int(np.flatnonzero(labels == label)[0])]
        known[[row for row in range(60) if groups[row] == group], 0] = True
    (choice,) = choose_penalties(Basis.of(x)(x), labels, groups, 2, known=known, penalties=GRID)
    assert (choice.penalty, choice.folds) == (UNKNOWN_PENALTY, 0)
    assert np.isnan(choice.losses).all()


def test_a_class_with_few_groups_has_as_few_inner_folds() -> None:
    x, labels, _ = pictures()
    groups = [f"{label}{number % (3 if label else 8)}" for number, label in enumerate(labels)]
    (choice,) = choose_penalties(Basis.of(x)(x), labels, groups, 2, known=np.ones((60, 1), bool), penalties=GRID)
    assert choice.folds == 3
