"""Time the regressions and neighbours of a probe beside scikit-learn, which fits one regression after the other.

    python scripts/bench_probe.py --quick       # fewer pictures, one round
    python scripts/bench_probe.py               # 1,000 pictures, 2048 features

One fold: the penalty out of 17 by five inner folds, then the regression, for two classes (L1) and four (L2); and the 20
nearest neighbours (L3). Both sides run in turn on one thread. Exit code 1 where results differ; times never fail.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_tools import FULL, QUICK, Row, comparison, conclude, describe, measured, reported
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from lessismore_transforms.classification.logistic_probe import PENALTIES
from lessismore_transforms.classification.splits import stratified_folds
from lessismore_transforms.probing.logistic import Basis, fit
from lessismore_transforms.probing.neighbours import nearest
from lessismore_transforms.probing.penalty import choose_penalties

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
SAME = 0.02  # of a mean loss: scikit-learn's regressions of the search end earlier or later than ours


def made(pictures: int, features: int, classes: int) -> tuple[Floats, Integers]:
    """Features whose sizes fall, as those of networks do, and labels that they tell in part."""
    random = np.random.default_rng(classes)
    x = random.normal(size=(pictures, features)) / np.sqrt(np.arange(1, features + 1))
    return x, (2 * x[:, :classes] + random.normal(size=(pictures, classes))).argmax(axis=1)


def ours(x: Floats, labels: Integers, test: Floats, classes: int) -> tuple[Floats, Floats]:
    """The loss of each penalty, and the probabilities of the test pictures."""
    groups, everything = [str(number) for number in range(len(x))], np.ones((len(x), 1), bool)
    basis = Basis.of(x)
    (choice,) = choose_penalties(basis(x), labels, groups, classes, known=everything)
    found = fit(basis(x), labels, classes, members=everything, penalties=np.array([choice.penalty]))
    return choice.losses, found.probabilities(basis(test))[:, 0]


def theirs(x: Floats, labels: Integers, test: Floats) -> tuple[Floats, Floats]:
    """The same by scikit-learn, each regression from the one before."""
    mean, scale = x.mean(axis=0), x.std(axis=0)
    x, test = (x - mean) / scale, (test - mean) / scale
    dealt = stratified_folds(labels.tolist(), [str(number) for number in range(len(x))], 5)
    p = np.empty((len(PENALTIES), len(x), labels.max() + 1))
    for fold in range(5):
        model = LogisticRegression(warm_start=True, max_iter=2000)
        for place, penalty in enumerate(PENALTIES):
            model.C = 1 / penalty
            model.fit(x[dealt != fold], labels[dealt != fold])
            p[place, dealt == fold] = model.predict_proba(x[dealt == fold])
    losses = np.array([log_loss(labels, each) for each in p])
    model = LogisticRegression(C=1 / PENALTIES[int(losses.argmin())], tol=1e-6, max_iter=2000).fit(x, labels)
    return losses, model.predict_proba(test)


def rows(pictures: int, features: int, rounds: int) -> Iterator[Row]:
    """The rows of the table."""
    size = f"{pictures:,} pictures, {features} features"
    for goal, classes in (("L1", 2), ("L2", 4)):
        x, labels = made(pictures + 200, features, classes)
        train, test, of = x[:pictures], x[pictures:], labels[:pictures]
        results: list[list[Any]] = [[], []]
        for _ in range(rounds):
            results[0].append(measured(lambda: theirs(train, of, test)))  # noqa: B023 (called at once)
            results[1].append(measured(lambda: ours(train, of, test, classes)))  # noqa: B023
        (sk_losses, sk_p), (our_losses, our_p) = (each[0][0] for each in results)
        strong = np.asarray(PENALTIES) >= 1  # weak ones have no sharp end
        equal = bool(np.abs(sk_losses - our_losses)[strong].max() < SAME and np.abs(sk_p - our_p).max() < SAME)
        taken = ([times for _, times in each] for each in results)
        yield comparison(goal, f"a fold of {classes} classes, {size}", *taken, equal=equal)
    x, labels = made(2 * pictures, features, 2)
    train, test, of = x[:pictures], x[pictures:], labels[:pictures]
    model = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
    found = [
        (measured(lambda: model.fit(train, of).predict_proba(test)), measured(lambda: nearest(train, of, test, 2)))
        for _ in range(rounds)
    ]
    equal = bool(np.allclose(found[0][0][0], found[0][1][0], atol=1e-6))
    yield comparison("L3", f"20 neighbours, {size}", [a[1] for a, _ in found], [b[1] for _, b in found], equal=equal)


def main() -> int:
    """Run what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0], allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="300 pictures, 512 features, one round: noisy")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = describe(QUICK if options.quick else FULL)
    size = (300, 512, 1) if options.quick else (1000, 2048, 3)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return conclude(reported(rows(*size)), about, options.json)


if __name__ == "__main__":
    sys.exit(main())
