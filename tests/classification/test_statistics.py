from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.special import expit, logit, softmax
from scipy.stats import beta, binom, binomtest, kstest, norm, rankdata, t

from lessismore_transforms.classification.metrics import METRICS, accuracy, auc
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.classification.statistics import (
    bootstrap_interval,
    delong_test,
    exact_interval,
    free_units,
    holm,
    log_odds_interval,
    mean_std,
    permutation_test,
    t_quantile,
)
from lessismore_transforms.classification.units import plural_unit, unit_of, whose


def test_mean_std_is_that_of_a_sample():
    assert mean_std([1.0, 2.0, 6.0]) == (3.0, pytest.approx(math.sqrt(7)))
    mean, std = mean_std([0.7])
    assert mean == 0.7
    assert math.isnan(std)
    with pytest.raises(ValueError, match="one run or more, found none"):
        mean_std([])


def test_a_patient_is_the_unit_where_all_are_known():
    labels, scores = np.array([0, 1]), np.array([0.2, 0.3])
    assert unit_of([run_of(labels, scores, [3, 4])]) == "patient"
    assert unit_of([run_of(labels, scores)]) == "image"
    names = ["a", "b", "c", "d"]
    runs = [
        Predictions(names, patients, ["test"] * 4, np.array([0, 1, 0, 1]), np.full((4, 2), 0.5), sources)
        for patients, sources in (
            (["", "", "", ""], ["x", "y", "y", "y"]),
            (["p", "p", "", ""], ["x", "y", "y", ""]),
            (["p", "p", "q", ""], []),
        )
    ]
    assert [unit_of([run]) for run in runs] == ["source", "patient or source or image", "patient or image"]
    assert [whose([run]) for run in runs] == [
        "2 sources",
        "1 patient, 1 source and 1 single image",
        "2 patients and 1 single image",
    ]
    assert whose([run_of(labels, scores)]) == ""
    assert [plural_unit(unit_of([run])) for run in runs[::2]] == ["sources", "patients and images"]


@pytest.mark.parametrize("name", ["auc", "accuracy", "f1_macro"])
@pytest.mark.parametrize("known", ["patient", "source", "image", "some"])
def test_an_interval_is_that_of_resampling_with_repetition(name, known):
    rng = np.random.default_rng(1)
    patients = rng.integers(9, size=30)
    labels = rng.integers(2, size=30)
    runs = [run_of(labels, labels + rng.normal(size=30), patients if known != "image" else None) for _ in range(2)]
    for run in runs:
        if known == "source":
            run.sources[:], run.patients[:] = run.patients, run.sources
        if known == "some":
            run.patients[:12], run.sources[:8] = [""] * 12, ["x", "y"] * 4

    run = runs[0]
    keys = [run.patients[i] or run.sources[i] or run.image_ids[i] for i in range(30)]
    names = list(dict.fromkeys(keys))
    rows_of = {unit: [i for i, key in enumerate(keys) if key == unit] for unit in names}
    draws = np.random.default_rng(5).integers(len(names), size=(200, len(names)))
    values = []
    for draw in draws:
        rows = np.concatenate([rows_of[names[unit]] for unit in draw])
        values.append(np.mean([METRICS[name](run.labels[rows], run.probabilities[rows], None) for run in runs]))
    mean = np.mean([METRICS[name](run.labels, run.probabilities) for run in runs])
    n = len(names)
    error = np.std(values) * math.sqrt(n / (n - 1))
    reach = t.ppf(0.95, n - 1) * error / (mean * (1 - mean))
    np.testing.assert_allclose(
        bootstrap_interval(runs, METRICS[name], samples=200, seed=5, level=0.9),
        expit([logit(mean) - reach, logit(mean) + reach]),
        rtol=0,
        atol=1e-12,
    )


def test_folds_are_drawn_each_for_itself_and_repeated_runs_of_a_fold_together():
    rng = np.random.default_rng(2)
    labels = [np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 1, 1, 1])]
    folds = [run_of(y, y + rng.normal(size=len(y)), offset=10 * k) for k, y in enumerate(labels)]
    again = [run_of(y, y + rng.normal(size=len(y)), offset=10 * k) for k, y in enumerate(labels)]

    generator = np.random.default_rng(0)
    first, second = (generator.integers(n, size=(300, n)) for n in (7, 5))
    values = [
        np.mean(
            [
                auc(run.labels[rows], run.probabilities[rows])
                for run, rows in zip(folds + again, [r, s, r, s], strict=True)
            ]
        )
        for r, s in zip(first, second, strict=True)
        if len(set(labels[0][r])) == len(set(labels[1][s])) == 2
    ]
    assert 0 < len(values) < 300
    expected = interval(folds + again, values, units=12, sets=2)
    np.testing.assert_allclose(bootstrap_interval(folds + again, auc, samples=300), expected, atol=1e-12)


def test_the_same_run_twice_has_the_interval_of_one():
    run = clustered(np.random.default_rng(3), patients=20, images=3, agree=0.5)
    once = bootstrap_interval([run], auc, samples=300)
    np.testing.assert_allclose(bootstrap_interval([run] * 3, auc, samples=300), once, atol=1e-12)
    assert once[0] < auc(run.labels, run.probabilities) < once[1]


def test_test_sets_that_overlap_share_their_draws():
    """Two halves that share one image are one test set: all units are drawn from each other.

    Both have 4 images, in the mean 1/8 each, the shared one twice. What an image adds, less the mean of its half, has
    for images of variance 1 the square 3/4 / 64; the shared one has (2 - 2/4)^2 + 6/16 of it. With the true mean it
    were 1 / 64 and 4 / 64.
    """
    rng = np.random.default_rng(4)
    labels = np.array([0, 1, 0, 1, 0, 1, 0])
    whole = run_of(labels, labels + rng.normal(size=7))
    halves = [rows_of(whole, np.arange(4)), rows_of(whole, np.arange(3, 7))]
    values = []
    for draw in np.random.default_rng(0).integers(7, size=(300, 7)):
        rows = [draw[draw < 4], draw[draw >= 3]]
        known = [r for r in rows if len(set(labels[r])) == 2]
        if known:
            values.append(np.mean([auc(labels[r], whole.probabilities[r]) for r in known]))
    share = (6 * 0.75 + 1.5**2 + 6 / 16) / (6 + 4)
    expected = interval(halves, values, units=7, sets=7 - 7 * share)
    np.testing.assert_allclose(bootstrap_interval(halves, auc, samples=300), expected, atol=1e-12)


def test_repeated_folds_by_hand():
    """Four pictures, two repeats of two folds; a picture is one unit, and runs of one fold again change nothing."""
    labels, score = np.array([0, 1, 0, 1]), np.array([0.2, 0.9, 0.8, 0.7])
    whole = run_of(labels, score)
    folds = [rows_of(whole, rows) for rows in ([0, 1], [2, 3], [0, 3], [1, 2])]
    right = np.array([1.0, 1.0, 0.0, 1.0])  # picture 2 is taken for class 1
    times = np.array([np.bincount(draw, minlength=4) for draw in np.random.default_rng(0).integers(4, size=(400, 4))])
    with np.errstate(invalid="ignore"):
        of_folds = [times[:, r] @ right[r] / times[:, r].sum(axis=1) for r in ([0, 1], [2, 3], [0, 3], [1, 2])]
    values = np.nanmean(of_folds, axis=0)
    # A fold's mean takes half of its two pictures away from each: a picture's part is 1 - 1/2 of itself and -1/4 of two
    # others, of the three that it was tested with in turn: 1/4 + 2/16.
    expected = interval(folds, values, units=4, sets=4 - 4 * (1 / 4 + 2 / 16), metric=accuracy)
    np.testing.assert_allclose(bootstrap_interval(folds, accuracy, samples=400), expected, atol=1e-12)
    np.testing.assert_allclose(bootstrap_interval(folds * 3, accuracy, samples=400), expected, atol=1e-12)


def test_the_units_that_vary_are_those_of_a_matrix_written_out():
    """Folds of unequal size, three repeats: the matrix that makes of the units' values their parts in the mean."""
    rng = np.random.default_rng(3)
    dealt = [rng.permutation(11) for _ in range(3)]
    sets = [part for order in dealt for part in np.split(order, [3, 7])]
    parts = np.zeros((11, 11))
    shares = np.zeros(11)
    for members in sets:
        for i in members:
            shares[i] += 1 / len(members)
            parts[i, i] += 1 / len(members)
            for j in members:
                parts[i, j] -= 1 / len(members) ** 2
    expected = 11 * np.sum(parts**2) / np.sum(shares**2)
    images = [np.repeat(members, 2) for members in sets]  # how many images a unit has is nothing to it
    assert free_units(images, 11) == pytest.approx(expected, abs=1e-12)
    assert 4 < free_units(images, 11) < 8
    assert free_units(sets[:3], 11) == free_units(sets[:3] * 2, 11) == 8
    assert free_units([np.arange(11)], 11) == 10


def test_an_interval_without_a_value_is_nan():
    one_class = run_of(np.array([1, 1, 1]), np.array([0.1, 0.2, 0.3]))
    assert all(map(math.isnan, bootstrap_interval([one_class], auc, samples=20)))
    one_patient = run_of(np.array([0, 1, 1]), np.array([0.1, 0.2, 0.3]), [4, 4, 4])
    assert all(map(math.isnan, bootstrap_interval([one_patient], accuracy, samples=20)))


@pytest.mark.parametrize(
    ("runs", "samples", "level", "found"),
    [
        (0, 10, 0.9, "found 0 runs, 10 samples and level 0.9"),
        (1, 0, 0.9, "found 1 run, 0 samples and level 0.9"),
        (1, 1, 1.0, "found 1 run, 1 sample and level 1.0"),
        (1, 10, 0.0, "found 1 run, 10 samples and level 0.0"),
    ],
)
def test_an_interval_of_nothing_is_refused(runs, samples, level, found):
    run = run_of(np.array([0, 1]), np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match=found):
        bootstrap_interval([run] * runs, auc, samples=samples, level=level)


def test_the_patient_bootstrap_covers_the_truth_and_that_of_images_does_not():
    """40 patients of 6 images that agree: 95 % of 300 intervals hold the true AUC; by images far fewer do."""
    rng = np.random.default_rng(0)
    covered = {"patient": 0, "image": 0}
    for seed in range(300):
        run = clustered(rng, patients=40, images=6, agree=0.8)
        for unit in covered:
            known = run if unit == "patient" else run_of(run.labels, scores_of(run))
            low, high = bootstrap_interval([known], auc, samples=200, seed=seed)
            covered[unit] += low <= TRUE_AUC <= high
    assert 0.90 < covered["patient"] / 300 < 0.98  # 0.95 less what a percentile interval of 40 patients lacks
    assert covered["image"] / 300 < 0.75


@pytest.mark.parametrize(("metric", "classes"), [(auc, 2), (auc, 3), (accuracy, 3), (METRICS["f1_macro"], 3)])
def test_a_permutation_p_value_is_that_of_all_exchanges(metric, classes):
    """Eight patients, two runs: all 2^8 exchanges one by one (of ranks within a model for the AUC) against random."""
    rng = np.random.default_rng(6)
    patients, labels = np.repeat(np.arange(8), 3), np.array([0, 1, classes - 1] * 8)
    a, b = ([several_classes(rng, labels, classes, patients, s) for _ in range(2)] for s in (1.5, 0.9))
    scores = [
        [rankdata(run.probabilities, axis=0) if metric is auc else run.probabilities for run in runs] for runs in (a, b)
    ]
    differences = []
    for exchange in itertools.product([False, True], repeat=8):
        rows = np.array(exchange)[patients][:, None]
        pairs = [(np.where(rows, q, p), np.where(rows, p, q)) for p, q in zip(*scores, strict=True)]
        differences.append(np.mean([metric(labels, p) - metric(labels, q) for p, q in pairs]))
    exact = np.mean(np.abs(differences) >= abs(differences[0]) - 1e-12)
    assert 0.02 < exact < 0.9
    found = permutation_test(a, b, metric, samples=4000)
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4000) + 1 / 4000)


def test_permuted_areas_in_closed_form_are_those_of_the_metric():
    """The same exchanges of rows that the metric weighs, given ranks: the p-value is the same to the last digit."""
    rng = np.random.default_rng(12)
    labels, patients = rng.integers(2, size=60), rng.integers(25, size=60)
    scores = [np.round(s * labels + rng.normal(size=60), 1) for s in (1.2, 0.7)]
    a, b = (run_of(labels, x, patients) for x in scores)
    ranked_a, ranked_b = (run_of(labels, rankdata(x) / 60, patients) for x in scores)
    slow = permutation_test([ranked_a], [ranked_b], lambda *of: auc(*of), samples=500)
    assert permutation_test([a], [b], auc, samples=500) == slow
    assert 0.01 < slow < 0.9


def test_a_permutation_p_value_needs_no_order_and_no_direction():
    rng = np.random.default_rng(7)
    a, b = ([clustered(np.random.default_rng(i), 12, 3, 0.5, noise=rng) for i in range(2)] for _ in range(2))
    p = permutation_test(a, b, auc, samples=500)
    assert 0.01 < p < 1
    assert permutation_test(b, a, auc, samples=500) == p
    shuffled = [rows_of(run, rng.permutation(36)) for run in b]
    assert permutation_test(a, shuffled, auc, samples=500) == p
    assert permutation_test(a, a, auc, samples=50) == 1
    right, wrong = (
        run_of(a[0].labels, labels, np.repeat(np.arange(12), 3)) for labels in (a[0].labels, 1 - a[0].labels)
    )
    assert permutation_test([right], [wrong], accuracy, samples=50) == 1 / 51
    sure = [run_of(run.labels, 5 * scores_of(run) + 9, np.repeat(np.arange(12), 3)) for run in b]
    assert permutation_test(a, sure, auc, samples=500) == p  # how a model is calibrated is nothing to its area
    one_class = [run_of(np.ones(3, int), np.arange(3.0))]
    assert math.isnan(permutation_test(one_class, one_class, auc, samples=50))


def test_a_permutation_of_five_folds_and_three_classes():
    """A's predictions are right and B's shifted by one class: no exchange of 15 patients comes near."""
    labels = np.array([0, 1, 2])
    ids = [[f"{fold}/{i}" for i in range(3)] for fold in range(5)]
    a, b = (
        [Predictions(names, [""] * 3, ["test"] * 3, labels, np.eye(3)[(labels + shift) % 3]) for names in ids]
        for shift in (0, 1)
    )
    assert permutation_test(a, b, accuracy, samples=999) == 1 / 1000
    assert permutation_test(a, b, auc, samples=999) < 0.01


def test_unlike_runs_are_refused():
    run = run_of(np.array([0, 1, 1]), np.array([0.1, 0.2, 0.3]), [1, 2, 3])
    fewer = rows_of(run, np.arange(2))
    relabelled = run_of(np.array([0, 1, 0]), np.array([0.1, 0.2, 0.3]), [1, 2, 3])
    renamed = run_of(run.labels, np.array([0.1, 0.2, 0.3]), [1, 2, 4])
    elsewhere = Predictions(
        run.image_ids, run.patients, run.splits, run.labels, run.probabilities, sources=["", "a", ""]
    )
    wider = Predictions(run.image_ids, run.patients, run.splits, run.labels, np.full((3, 3), 1 / 3))
    for other, sentence in (
        ([run, run], "as many runs of both models, one or more, found 1 and 2"),
        ([], "found 1 and 0"),
        ([fewer], "the same images in run 0 of both models, found 1 image of one model only"),
        ([relabelled], "the same labels in run 0 of both models, found other labels for 1 image, first image 2"),
        ([elsewhere], "the same sources in run 0 of both models, found other sources for 1 image, first image 1"),
        ([renamed], "the same patients in run 0 of both models, found other patients for 1 image, first image 2"),
        ([wider], "as many classes in run 0 of both models, found 2 and 3"),
    ):
        with pytest.raises(ValueError, match=sentence):
            permutation_test([run], other, accuracy, samples=10)
    with pytest.raises(ValueError, match="1 sample or more, found 0"):
        permutation_test([run], [run], accuracy, samples=0)


def test_permutation_p_values_are_uniform_where_models_are_alike():
    """Two models that make the same errors but for noise, 20 patients of 3 images, two runs each."""
    rng = np.random.default_rng(8)
    p = []
    for seed in range(300):
        signal = clustered(rng, 20, 3, 0.5)
        a, b = ([clustered_again(signal, rng) for _ in range(2)] for _ in range(2))
        p.append(permutation_test(a, b, auc, samples=199, seed=seed))
    assert_uniform(p)


def test_a_permutation_test_finds_a_difference():
    rng = np.random.default_rng(9)
    found = []
    for seed in range(40):
        run = clustered(rng, 40, 3, 0.5)
        better = run_of(run.labels, scores_of(run) + 1.5 * run.labels, np.repeat(np.arange(40), 3))
        a, b = clustered_again(better, rng), clustered_again(run, rng)
        found.append(permutation_test([a], [b], auc, samples=199, seed=seed))
    assert np.mean(np.array(found) < 0.05) > 0.9


@pytest.mark.parametrize("decimals", [1, 9])
def test_delong_is_the_double_sum_over_pairs(decimals):
    """DeLong et al. 1988, Equations 3 to 6, pair by pair; rounded scores are full of ties."""
    rng = np.random.default_rng(10)
    labels = np.array([0] * 25 + [1] * 17)
    scores = [np.round(labels * s + rng.normal(size=42), decimals) for s in (0.4, 0.9)]
    v10, v01 = np.zeros((2, 17)), np.zeros((2, 25))
    for r, x in enumerate(scores):
        for i, j in itertools.product(range(17), range(25)):
            psi = 1.0 if x[25 + i] > x[j] else 0.5 if x[25 + i] == x[j] else 0.0
            v10[r, i] += psi / 25
            v01[r, j] += psi / 17
    covariance = np.cov(v10) / 17 + np.cov(v01) / 25
    theta = v10.mean(axis=1)
    z = (theta[0] - theta[1]) / math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])

    order = rng.permutation(42)
    found = delong_test(labels[order], scores[0][order], scores[1][order])
    expected = (theta[0], theta[1], theta[0] - theta[1], z, 2 * norm.sf(abs(z)))
    np.testing.assert_allclose(
        (found.auc_a, found.auc_b, found.difference, found.z, found.p), expected, rtol=1e-12, atol=1e-15
    )


def test_delong_of_equal_curves_and_of_no_variance():
    labels, scores = np.array([0, 1, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.8, 0.3])
    for same in (scores, np.exp(scores)):  # only ranks count
        found = delong_test(labels, scores, same)
        assert (found.difference, found.z, found.p) == (0, 0, 1)
    perfect = delong_test(labels, labels, 1 - labels)
    assert (perfect.auc_a, perfect.auc_b, perfect.difference) == (1, 0, 1)
    assert math.isnan(perfect.z)
    assert math.isnan(perfect.p)
    single = delong_test([0, 0, 1], [0.1, 0.2, 0.15], [0.1, 0.2, 0.3])
    assert single.difference == -0.5
    assert math.isnan(single.p)


@pytest.mark.parametrize(
    ("labels", "scores", "sentence"),
    [
        ([0, 1, 1], [0.1, 0.2], r"found shapes \(3,\), \(2,\)"),
        ([1, 1], [0.1, 0.2], r"labels 0 and 1, found \[1\]"),
        ([0, 1, 2], [0.1, 0.2, 0.3], r"labels 0 and 1, found \[0, 1, 2\]"),
        ([0, 1], [0.1, math.nan], "finite scores"),
    ],
)
def test_delong_of_nonsense_is_refused(labels, scores, sentence):
    with pytest.raises(ValueError, match=sentence):
        delong_test(labels, scores, scores)


def test_delong_p_values_are_uniform_where_models_are_alike_and_small_where_not():
    rng = np.random.default_rng(11)
    labels = np.array([0, 1] * 60)
    alike, unlike = [], []
    for _ in range(500):
        signal = 1.5 * labels + rng.normal(size=120)
        a, b, c = (signal + s * rng.normal(size=120) for s in (0.7, 0.7, 5.0))
        alike.append(delong_test(labels, a, b).p)
        unlike.append(delong_test(labels, a, c).p)
    assert_uniform(alike)
    assert np.mean(np.array(unlike) < 0.05) > 0.8


def interval(runs, values, units: int, sets: float, metric=auc) -> tuple[float, float]:
    """The ends of an interval from bootstrapped areas, or accuracies, of so many units in so many test sets."""
    mean = np.mean([metric(run.labels, run.probabilities) for run in runs])
    low, high = log_odds_interval(mean, np.std(values) * math.sqrt(units / (units - sets)), units - sets, 0.95)
    if np.mean(np.isin(np.round(values, 9), (0, 1))) > 0.025:  # images are the units
        classes = {name: label for run in runs for name, label in zip(run.image_ids, run.labels, strict=True)}
        n = np.bincount(list(classes.values())).min() if metric is auc else len(classes)
        low = min(low, beta.ppf(0.025, mean * n, n - mean * n + 1))
        high = max(high, beta.ppf(0.975, mean * n + 1, n - mean * n))
    return low, high


def test_an_interval_of_log_odds_by_hand():
    # log(0.8 / 0.2) = 1.3863, 2.0010 * 0.04 / 0.16 = 0.5003: 0.8860 and 1.8866
    low, high = log_odds_interval(0.8, 0.04, 59, 0.95)
    assert (low, high) == (pytest.approx(0.7081, abs=1e-4), pytest.approx(0.8684, abs=1e-4))
    assert log_odds_interval(0.2, 0.04, 59, 0.95) == (pytest.approx(1 - high), pytest.approx(1 - low))
    assert log_odds_interval(1.0, 0.0, 59, 0.95) == (1, 1)
    assert t_quantile(math.inf, 0.95) == pytest.approx(1.959964)


def test_an_exact_interval_against_scipy():
    assert exact_interval(1.0, 20, 0.95) == (pytest.approx(0.025 ** (1 / 20)), 1)  # 0.8316
    assert exact_interval(0.0, 20, 0.95) == (0, pytest.approx(1 - 0.025 ** (1 / 20)))
    for hits in (1, 7, 19):
        expected = binomtest(hits, 20).proportion_ci(method="exact")
        assert exact_interval(hits / 20, 20, 0.95) == pytest.approx(tuple(expected), abs=1e-9)


def test_a_score_of_1_or_0_is_not_certain():
    labels = np.arange(50) % 5 // 3  # 30 and 20
    right = run_of(labels, 4.0 * labels - 1.5)
    for metric, count in ((auc, 20), (accuracy, 50), (METRICS["f1"], 20)):
        assert bootstrap_interval([right], metric, samples=50) == (pytest.approx(0.025 ** (1 / count)), 1)
    wrong = run_of(labels, 2.5 - 4.0 * labels)
    assert bootstrap_interval([wrong], accuracy, samples=50) == (0, pytest.approx(1 - 0.025 ** (1 / 50)))
    alike = run_of(labels, 0.0 * labels)  # says nothing
    assert bootstrap_interval([alike], auc, samples=50) == pytest.approx(exact_interval(0.5, 20, 0.95))
    scores = 4.0 * labels - 1.5
    scores[3] = -1.6  # below one image of the other class: a third of the draws have none of the two
    almost = run_of(labels, scores)
    low, high = bootstrap_interval([almost], auc, samples=200)
    assert low < 0.9 < auc(labels, almost.probabilities) < high
    patients = [n // 5 for n in range(50)]  # with both classes each
    several = run_of(labels, 4.0 * labels - 1.5, patients)
    assert bootstrap_interval([several], auc, samples=50)[0] == pytest.approx(0.025 ** (1 / 10))


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, math.nan, 0.02, 0.7]), [1, math.nan, 0.06, 1])
    np.testing.assert_allclose(holm([0.02, 0.02]), [0.04, 0.04])
    assert holm([]).shape == (0,)
    assert np.isnan(holm([math.nan])).all()
    with pytest.raises(ValueError, match="p-values from 0 to 1"):
        holm([0.2, 1.5])


# Scores: label + what a patient's images have in common + noise, of variance 1 together.
TRUE_AUC = norm.cdf(1 / math.sqrt(2))


def run_of(labels, scores, patients=None, offset=0) -> Predictions:
    """A run of two classes; class 1 is predicted where its score is above 0.5."""
    names = [f"image {offset + i}" for i in range(len(labels))]
    known = [""] * len(labels) if patients is None else [f"p{patient}" for patient in patients]
    p = expit(np.asarray(scores) - 0.5)
    return Predictions(names, known, ["test"] * len(labels), np.asarray(labels, np.int64), np.stack([1 - p, p], axis=1))


def scores_of(run: Predictions):
    return 0.5 + logit(run.probabilities[:, 1])


def several_classes(rng, labels, classes: int, patients, signal: float) -> Predictions:
    p = softmax(signal * np.eye(classes)[labels] + rng.normal(size=(len(labels), classes)), axis=1)
    names = [f"image {i}" for i in range(len(labels))]
    return Predictions(names, [f"p{patient}" for patient in patients], ["test"] * len(names), labels, p)


def rows_of(run: Predictions, rows) -> Predictions:
    return run.rows(rows)


def clustered(rng, patients: int, images: int, agree: float, noise=None) -> Predictions:
    """Half of the patients positive, each with images whose scores correlate by `agree`."""
    labels = np.repeat(np.arange(patients) % 2, images)
    common = np.repeat(rng.normal(size=patients), images)
    own = (noise or rng).normal(size=labels.size)
    scores = labels + math.sqrt(agree) * common + math.sqrt(1 - agree) * own
    return run_of(labels, scores, np.repeat(np.arange(patients), images))


def clustered_again(run: Predictions, rng) -> Predictions:
    """The run of another model: noise common to a patient's images beside that of each."""
    _, patient = np.unique(run.patients, return_inverse=True)
    noise = rng.normal(size=patient.max() + 1)[patient] + rng.normal(size=patient.size)
    return run_of(run.labels, scores_of(run) + 0.5 * noise, patient)


def assert_uniform(p) -> None:
    """By Kolmogorov-Smirnov, and by the share below 0.05, within what chance does once in a thousand."""
    assert kstest(p, "uniform").pvalue > 0.01
    low, high = binom.interval(0.999, len(p), 0.05)
    assert low <= np.sum(np.array(p) <= 0.05) <= high
