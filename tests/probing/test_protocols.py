from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from lessismore_transforms.classification.metrics import auc
from lessismore_transforms.probing.draws import draw_folds, draw_official
from lessismore_transforms.probing.protocols import outcomes
from lessismore_transforms.probing.settings import ProbeSettings

SETTINGS = ProbeSettings(Path("x"), ("a=b",), Path("out"), fractions=(1.0,), repeats=1)


def test_labels_that_are_random_by_patient_are_learned_by_random_folds_and_not_by_grouped_ones() -> None:
    """Pictures of a patient look alike, so that a fold that divides patients tells nothing but who they are."""
    rng = np.random.default_rng(0)
    means: dict[str, list[float]] = {"grouped": [], "random": []}
    for _ in range(6):
        patients = np.repeat(np.arange(40), 4)
        labels = rng.permutation(np.repeat([0, 1], 20))[patients]
        features = rng.normal(size=(40, 60))[patients] + 0.5 * rng.normal(size=(160, 60))
        for name, groups in (("grouped", [f"{p}" for p in patients]), ("random", [f"{n}" for n in range(160)])):
            areas = []
            for draw in draw_folds(labels, groups, folds=5, repeats=1, seed=0):
                found = outcomes(features, labels, groups, 2, draw, SETTINGS)
                areas.append([float(auc(labels[draw.test], each.probabilities)) for each in found])
            means[name].append(np.mean(areas, axis=0))
    grouped, random = (np.array(means[name]) for name in ("grouped", "random"))  # (6, protocols)
    error = grouped.std(axis=0, ddof=1) / np.sqrt(6)
    assert (np.abs(grouped.mean(axis=0) - 0.5) < 3 * error).all()
    assert (random.mean(axis=0) > 0.85).all()


def test_pictures_of_the_test_part_change_nothing_that_is_chosen() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 20)), np.arange(60) % 2
    groups = [f"{n}" for n in range(60)]
    draw = draw_folds(labels, groups, folds=5, repeats=1, seed=0)[0]
    changed = features.copy()
    changed[draw.test] = 100.0
    settings = dataclasses.replace(SETTINGS, fractions=(0.2, 1.0))
    one, other = (outcomes(x, labels, groups, 2, draw, settings) for x in (features, changed))
    assert [each.about for each in one] == [each.about for each in other]
    assert [each.trained_on for each in one] == [48, 10, 48]


def test_repeats_of_one_seed_are_not_those_of_the_next() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 20)), np.arange(60) % 2
    draws = draw_official(["train"] * 40 + ["test"] * 20, repeats=2)
    few = [
        outcomes(features, labels, [f"{n}" for n in range(60)], 2, draw, settings)[1].probabilities
        for settings in (dataclasses.replace(SETTINGS, fractions=(0.2, 1.0), repeats=2, seed=seed) for seed in (0, 1))
        for draw in draws
    ]
    assert len({each.tobytes() for each in few}) == 4
