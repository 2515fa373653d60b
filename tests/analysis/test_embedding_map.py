from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import pearsonr, t
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import silhouette_samples
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from lessismore_transforms.analysis import embedding_map
from lessismore_transforms.analysis.embedding_map import (
    default_perplexity,
    explained_shares,
    linear_auc,
    neighbour_accuracy,
    pca_map,
    separation,
    silhouette,
    target_correlation,
    tsne_map,
    tsne_maps,
)
from lessismore_transforms.analysis.group_intervals import mean_by_groups
from lessismore_transforms.classification.statistics import exact_interval


def clusters(count: int = 40, *, apart: float = 1.0, classes: int = 2, size: int = 5, seed: int = 0):
    """Features (N, size) of classes around as many points, labels, and patients with one to three pictures each."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(count), rng.integers(1, 4, count))[:count]
    labels = groups % classes
    middles = apart * np.eye(classes, size)
    patients = 0.3 * rng.normal(size=(count, size))
    return middles[labels] + patients[groups] + 0.3 * rng.normal(size=(count, size)), labels, groups


def turned(points: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return points @ np.array([[cos, -sin], [sin, cos]])


# maps


def test_pca_by_hand() -> None:
    """Points along (3, 4), and less along (-4, 3) and a third axis."""
    along, across = np.array([-2.0, -1, 1, 2]), np.array([0.5, -1, 1, -0.5])
    points = np.outer(along, [0.6, 0.8, 0]) + np.outer(across, [-0.8, 0.6, 0]) + [5, 6, 7]
    found = pca_map(points)
    assert np.abs(found[:, 0]) == pytest.approx(np.abs(along))
    assert np.abs(found[:, 1]) == pytest.approx(np.abs(across))


def test_tsne_keeps_clusters_together_and_repeats() -> None:
    features, labels, _ = clusters(60, apart=8)
    maps = tsne_maps(features, seeds=(0, 1))
    assert maps.shape == (2, 60, 2)
    for places in maps:
        assert silhouette_samples(places, labels).min() > 0.4
    assert np.array_equal(maps[1], tsne_map(features, init="random", seed=1))
    assert not np.allclose(maps[0], maps[1])
    assert np.array_equal(tsne_map(features), tsne_map(features, perplexity=59 / 3, init="pca", seed=7))


def test_default_perplexity() -> None:
    """Three times as many neighbours are there."""
    assert [default_perplexity(count) for count in (4, 31, 91, 10_000)] == [1, 10, 30, 30]
    assert tsne_map(np.random.default_rng(0).normal(size=(4, 3))).shape == (4, 2)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda x: tsne_map(x[:3]), r"features \(N, F\) of 4 pictures or more, two of each or more, found \(3, 5\)"),
        (lambda x: pca_map(x[:, :1]), r"found \(40, 1\)"),
        (lambda x: tsne_map(x, perplexity=14), "perplexity from 1 to 13, .* found 14 for 40 pictures: give a smaller"),
        (lambda x: tsne_map(x, perplexity=0.5), "a perplexity from 1 to 13"),
        (lambda x: tsne_map(x, init="spectral"), "an init out of pca and random, found 'spectral'"),
        (lambda x: tsne_maps(x, seeds=()), "expected one seed or more, found none"),
        (lambda x: tsne_map(np.where(x > 1, math.nan, x)), "expected finite features, found others for"),
        (lambda x: tsne_map(np.ones_like(x) / 3), "features that differ, found the same for all 40 pictures"),
        (lambda x: silhouette(np.ones_like(x), np.arange(40) % 2, np.arange(40)), "the network has collapsed"),
    ],
)
def test_wrong_features_are_told(call, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call(clusters()[0])


# correlation with the target


def test_multiple_correlation_by_hand() -> None:
    """Axes that are uncorrelated: R^2 is the sum of both r^2. r = 2 / sqrt(4 * 4) for the first, 0 for the second."""
    places = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    target = [1, 1, 1, 0]  # less its mean: 1/4, 1/4, 1/4, -3/4
    found = target_correlation(places, target)
    r = 1 / math.sqrt(4 * 0.75)
    assert found.axes[0] == pytest.approx([r, r])
    assert found.multiple == pytest.approx([math.sqrt(2 / 3)])


def test_correlations_are_those_of_scipy_and_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    maps, target = rng.normal(size=(3, 30, 2)) * [1, 20] + [5, 0], rng.integers(0, 4, 30)
    found = target_correlation(maps, target)
    for seed in range(3):
        for axis in range(2):
            assert found.axes[seed, axis] == pytest.approx(pearsonr(maps[seed, :, axis], target).statistic)
        fitted = LinearRegression().fit(maps[seed], target).predict(maps[seed])
        assert found.multiple[seed] == pytest.approx(pearsonr(fitted, target).statistic)
        indicators = np.eye(4)[target]
        model = LinearRegression().fit(maps[seed], indicators)
        for label in range(4):
            share = pearsonr(model.predict(maps[seed])[:, label], indicators[:, label]).statistic
            assert found.per_class[seed, label] == pytest.approx(share)
        spread = [np.cov(y.T, bias=True).trace() for y in (model.predict(maps[seed]), indicators)]
        assert found.classes[seed] == pytest.approx(math.sqrt(spread[0] / spread[1]))


def test_a_turned_or_mirrored_map_keeps_the_multiple_correlation_but_not_that_of_axes() -> None:
    rng = np.random.default_rng(0)
    target = np.arange(40) % 3
    places = rng.normal(size=(40, 2)) + np.outer(target, [1.0, 0])
    before = target_correlation(places, target)
    for moved in (turned(places, 1), 3 * turned(places, 2) * [1, -1] + [7, 1]):
        after = target_correlation(moved, target)
        for name in ("multiple", "per_class", "classes"):
            assert getattr(after, name) == pytest.approx(getattr(before, name))
        assert np.abs(np.abs(after.axes) - np.abs(before.axes)).max() > 0.1


def test_two_classes_have_one_correlation() -> None:
    places, target = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) % 2
    found = target_correlation(places, target)
    assert found.per_class[0] == pytest.approx([found.multiple[0]] * 2)
    assert found.classes == pytest.approx(found.multiple)
    assert target_correlation(np.outer(target, [1, 2]), target).multiple == pytest.approx([1])


def test_a_constant_axis_correlates_with_nothing() -> None:
    target = np.array([0, 0, 1, 1])
    found = target_correlation(np.column_stack([np.ones(4), [1, 2, 3, 4]]), target)
    assert math.isnan(found.axes[0, 0])
    assert found.multiple[0] == pytest.approx(abs(found.axes[0, 1]))
    assert np.isnan(explained_shares(np.eye(4)[:, :2], np.ones((4, 1)))).all()


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ([1, 1, 1, 1], "two classes or more, found the class 1.0 alone"),
        ([1, 2, 1], r"found \(1, 4, 2\) and \(3,\)"),
    ],
)
def test_wrong_targets_are_told(target, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        target_correlation(np.ones((4, 2)), target)


# what needs no map


def test_silhouette_by_hand() -> None:
    """Directions at 0, 0, 90 and 90 degrees, of other lengths: distance 0 within, so that it is 1."""
    features, groups = np.array([[1.0, 0], [7, 0], [0, 2], [0, 1]]), np.arange(4)
    assert silhouette(features, [0, 0, 1, 1], groups).value == pytest.approx(1)
    mixed = silhouette(features, [0, 1, 0, 1], groups)  # own class at sqrt(2), the other at sqrt(2) / 2
    assert mixed.value == pytest.approx(-0.5)
    assert math.isnan(silhouette(features, ["a", "a", "a", "b"], groups).low)  # without b there is one class


def test_silhouette_has_the_jackknife_of_a_slow_loop() -> None:
    features, labels, groups = clusters(30, classes=3)
    z = features / np.linalg.norm(features, axis=1, keepdims=True)
    names = np.unique(groups)
    without = [silhouette_samples(z[groups != name], labels[groups != name]).mean() for name in names]
    error = math.sqrt((len(names) - 1) ** 2 / len(names) * np.var(without, ddof=1))
    found = silhouette(features, labels, groups)
    assert found.value == pytest.approx(silhouette_samples(z, labels).mean())
    assert found.high - found.low == pytest.approx(2 * t.ppf(0.975, len(names) - 1) * error)
    assert found.groups == len(names)


def test_intervals_of_the_silhouette_hold_that_of_many_pictures() -> None:
    """Two classes of 20 pictures each; from the spread of pictures alone they would be too narrow."""
    rng = np.random.default_rng(0)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % 2
        features = np.eye(2)[labels] + 0.5 * rng.normal(size=(count, 2))
        return features / np.linalg.norm(features, axis=1, keepdims=True), labels

    truth = silhouette_samples(*draw(2000)).mean()
    hits, narrow, repeats = 0, 0, 80
    for _ in range(repeats):
        features, labels = draw(40)
        found = silhouette(features, labels, np.arange(40), blocks=20)
        hits += found.low <= truth <= found.high
        alone = mean_by_groups(silhouette_samples(features, labels), np.arange(40))
        narrow += alone.low <= truth <= alone.high
    assert hits / repeats > 0.88
    assert narrow / repeats < 0.85


def test_neighbours_are_never_of_the_same_group() -> None:
    """Pictures of a patient are all but equal, and the next patient has the other label: right only if asked itself."""
    places = np.repeat(np.arange(6.0), 3) + np.tile([0, 0.01, 0.02], 6)
    features = np.column_stack([np.cos(places / 10), np.sin(places / 10)])
    labels, groups = np.repeat([0, 1, 0, 1, 0, 1], 3), np.repeat(np.arange(6), 3)
    assert neighbour_accuracy(features, labels, groups, neighbours=1).value == 0
    assert neighbour_accuracy(features, labels, np.arange(18), neighbours=1).value == 1


def test_neighbours_by_a_slow_loop() -> None:
    features, labels, groups = clusters(40, classes=3, apart=0.7)
    z = features / np.linalg.norm(features, axis=1, keepdims=True)
    right = 0
    for i in range(40):
        others = sorted((j for j in range(40) if groups[j] != groups[i]), key=lambda j, i=i: -z[i] @ z[j])[:5]
        votes = np.bincount(labels[others], [math.exp(z[i] @ z[j] / 0.07) for j in others], 3)
        right += votes.argmax() == labels[i]
    found = neighbour_accuracy(features, labels, groups)
    assert found.value == pytest.approx(right / 40)
    assert 0 < found.low < found.value < found.high < 1
    order = np.random.default_rng(0).permutation(40)
    assert neighbour_accuracy(features[order], labels[order], groups[order]).value == found.value


def test_all_right_is_not_certain() -> None:
    """The interval of 12 patients of 12."""
    features, groups = np.repeat(np.eye(2, 3), 12, axis=0), np.repeat(np.arange(12), 2)
    features = features + 0.01 * np.random.default_rng(0).normal(size=(24, 3))
    found = neighbour_accuracy(features, np.repeat([0, 1], 12), groups)
    assert found[:3] == pytest.approx((1, *exact_interval(1, 12, 0.95)))


@pytest.mark.parametrize("size", [5, 80])
def test_linear_auc_is_that_of_scikit_learn(size: int) -> None:
    """One penalty; with more features than pictures too, where only the directions of pictures are kept."""
    features, labels, groups = clusters(60, apart=0.5, size=size)
    areas = []
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=3).split(features, labels, groups):
        scaler = StandardScaler().fit(features[train])
        model = LogisticRegression(C=0.1, max_iter=1000).fit(scaler.transform(features[train]), labels[train])
        scores = model.decision_function(scaler.transform(features[test]))
        pairs = [
            (scores[i], scores[j])
            for i in range(len(test))
            for j in range(len(test))
            if labels[test[i]] > labels[test[j]]
        ]
        areas.append(np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs]))
    found = linear_auc(features, labels, groups, penalties=[10], seed=3)
    assert found.value == pytest.approx(np.mean(areas), abs=1e-3)
    assert found.low < found.value < found.high
    assert found.groups == len(np.unique(groups))


def test_the_penalty_is_chosen_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups that are held out have no part in the choice; one that leaves no weights is not taken."""
    features, labels, groups = clusters(60, size=30)
    choose, seen = embedding_map._best_penalty, []

    def watched(x, y, g, *rest):
        seen.append(({*g}, choose(x, y, g, *rest)))
        return seen[-1][1]

    monkeypatch.setattr(embedding_map, "_best_penalty", watched)
    found = linear_auc(features, labels, groups)
    assert len(seen) == 5
    assert all(len(known) < found.groups for known, _ in seen)
    assert {*groups} == set().union(*({*groups} - known for known, _ in seen))
    assert all(penalty < 1e4 for _, penalty in seen)
    assert found.value > 0.9


def test_separation_rises_with_the_distance_of_classes() -> None:
    near, far = (separation(*clusters(80, apart=apart, classes=3)) for apart in (0.0, 2.0))
    for low, high in zip(near, far, strict=True):
        assert low.value < high.value
    assert near.linear.low < 0.5 < near.linear.high
    assert far.linear.value > 0.95
    assert far.neighbours.value > 0.95


@pytest.mark.parametrize(
    ("measure", "labels", "groups", "sentence"),
    [
        (separation, np.zeros(6), np.arange(6), "two classes or more, found the class 0.0 alone"),
        (silhouette, np.arange(6), np.arange(6), "fewer classes than pictures, found 6 of both"),
        (silhouette, np.arange(5) % 2, np.arange(5), r"found \(6, 3\), \(5,\) and \(5,\): give equal lengths"),
        (neighbour_accuracy, np.arange(6) % 2, np.zeros(6), "pictures of two groups or more, found one"),
        (linear_auc, [0, 0, 0, 0, 1, 1], [0, 1, 2, 3, 4, 4], "each class in two groups or more, found one in a single"),
    ],
)
def test_wrong_labels_and_groups_are_told(measure, labels, groups, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        measure(np.random.default_rng(0).normal(size=(6, 3)), labels, groups)


@pytest.mark.parametrize(("keyword", "value"), [("folds", 1), ("penalties", []), ("penalties", [0.0])])
def test_wrong_settings_of_the_regression_are_told(keyword: str, value) -> None:
    with pytest.raises(ValueError, match="2 folds or more and positive penalties"):
        linear_auc(*clusters(), **{keyword: value})


def test_no_neighbours_cannot_vote() -> None:
    with pytest.raises(ValueError, match="1 neighbour or more, found 0"):
        neighbour_accuracy(*clusters(), neighbours=0)
