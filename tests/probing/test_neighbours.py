from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from lessismore_transforms.probing.neighbours import nearest


@pytest.mark.parametrize("neighbours", [1, 7, 50])
def test_the_vote_equals_scikit_learn(neighbours: int) -> None:
    rng = np.random.default_rng(0)
    train, test, labels = rng.normal(size=(50, 8)), rng.normal(size=(20, 8)), rng.integers(3, size=50)
    found = nearest(train, labels, test, 3, neighbours=neighbours, temperature=0.1)
    oracle = KNeighborsClassifier(neighbours, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.1))
    np.testing.assert_allclose(found, oracle.fit(train, labels).predict_proba(test), atol=1e-9)


def test_more_neighbours_than_pictures_are_all_of_them() -> None:
    train, labels = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1])
    found = nearest(train, labels, np.array([[1.0, 0.0]]), 2, neighbours=20, temperature=1.0)
    np.testing.assert_allclose(found, [[np.e / (np.e + 1), 1 / (np.e + 1)]])
