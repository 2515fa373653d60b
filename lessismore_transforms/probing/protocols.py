"""What is learned from the features of one network on one fold: each protocol predicts the pictures of its test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lessismore_transforms.probing.draws import Draw, draw_labels
from lessismore_transforms.probing.logistic import Basis, Floats, Integers, fit
from lessismore_transforms.probing.neighbours import nearest
from lessismore_transforms.probing.penalty import Choice, choose_penalties
from lessismore_transforms.probing.settings import ProbeSettings

KNN, LOGISTIC = "knn", "logistic"


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one protocol predicts.

    Args:
        protocol: its name, as `names_of` has it.
        probabilities: (M, C) of the test pictures.
        trained_on: number of pictures whose labels were known.
        about: plain values on what was chosen.
    """

    protocol: str
    probabilities: Floats
    trained_on: int
    about: dict[str, Any]


def names_of(settings: ProbeSettings) -> dict[str, str]:
    """The protocols of a probe: names of folders, and what tables call them."""
    titles = {
        name: "logistic regression" + (f" on {100 * share:g} % of the labels" if share < 1 else "")
        for name, share in shares_of(settings).items()
    }
    return {**titles, KNN: f"{settings.neighbours} nearest neighbours"}


def shares_of(settings: ProbeSettings) -> dict[str, float]:
    """The share of known labels of each protocol of regressions, the largest first."""
    return {f"{LOGISTIC}_{100 * share:g}_percent" if share < 1 else LOGISTIC: share for share in settings.shares}


def outcomes(
    features: Floats, labels: Integers, groups: Sequence[str], classes: int, draw: Draw, settings: ProbeSettings
) -> list[Outcome]:
    """The predictions of all protocols for one fold.

    Features are standardised by all pictures of the training part: those are there, also where few labels are known.

    Args:
        features: (N, F) of all pictures.
        labels: (N,).
        groups: N names of what stays together.
        classes: number of classes.
        draw: the fold.
        settings: of the probe.
    """
    own, of = labels[draw.train], [groups[row] for row in draw.train]
    seed = 1_000_000 * settings.seed + 1000 * draw.repeat + (draw.fold or 0)  # of this draw alone
    known = draw_labels(own, of, settings.shares, seed=seed)  # (N, shares)
    basis = Basis.of(features[draw.train])
    train, test = basis(features[draw.train]), basis(features[draw.test])
    choices = choose_penalties(train, own, of, classes, known=known, folds=settings.inner_folds, seed=seed)
    penalties = np.array([choice.penalty for choice in choices])
    found = fit(train, own, classes, members=known, penalties=penalties)
    judged = found.probabilities(test)  # (M, shares, C)
    names = list(names_of(settings))
    regressions = [
        Outcome(names[n], judged[:, n], int(known[:, n].sum()), _about(choice, bool(found.converged[n])))
        for n, choice in enumerate(choices)
    ]
    votes = nearest(
        features[draw.train], own, features[draw.test], classes,
        neighbours=settings.neighbours, temperature=settings.temperature,
    )  # fmt: skip
    return [*regressions, Outcome(KNN, votes, len(own), {"neighbours": min(settings.neighbours, len(own))})]


def _about(choice: Choice, converged: bool) -> dict[str, Any]:
    return {
        "penalty": choice.penalty,
        "inner_folds": choice.folds,
        "inner_nll": [None if np.isnan(loss) else float(loss) for loss in choice.losses],
        "converged": converged,
    }
