"""Features in two dimensions, what such a map has to do with the target, and what needs no map.

The paper (Wolf et al. 2024, Section 3.4) maps classifier outputs of test pictures by t-SNE and reports Pearson's
correlation of the map with the target; it does not tell perplexity, seed, or what is done with two axes. t-SNE keeps
distances only: a map may be turned and mirrored at will, and each axis then correlates otherwise. So the multiple
correlation of both axes with the target is given beside Pearson's, over several seeds. Silhouette, neighbours and a
linear classifier tell of the features themselves.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lessismore_transforms.analysis.group_intervals import BLOCKS, Estimate, jackknife
from lessismore_transforms.classification.logistic_probe import PENALTIES, standardisation
from lessismore_transforms.classification.metrics import Metric, accuracy, auc
from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.classification.statistics import bootstrap_interval, mean_of_runs
from lessismore_transforms.errors import UserError
from lessismore_transforms.pretraining.probe import nearest_classes
from lessismore_transforms.wording import counted, listed

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PERPLEXITY = 30.0
SEEDS = (0, 1, 2, 3, 4)
INITS = ("pca", "random")
NEIGHBOURS = 5
FOLDS = 5
_LEAST = 4  # pictures
_INNER_FOLDS = 3
_CONSTANT = 1e-6  # spread of features, as a share of their size, that is rounding of float32


class TargetCorrelation(NamedTuple):
    """How S maps of the same features correlate with a target.

    The numbers of more than two classes have no order: then `per_class` and `classes` are what to read.

    Attributes:
        axes: (S, 2) Pearson's r of each axis with the target's number; its sign and size turn with the map.
        multiple: (S,) multiple correlation R of both axes with the target's number, 0 to 1; the same for turned maps.
        per_class: (S, C) R with each class against the rest.
        classes: (S,) R with all classes at once: the root of the share of the variance of the C indicators that both
            axes explain. For two classes it equals `multiple`.
    """

    axes: Floats
    multiple: Floats
    per_class: Floats
    classes: Floats


class Separation(NamedTuple):
    """How far features tell classes apart, without any map.

    Attributes:
        silhouette: of `silhouette`.
        neighbours: of `neighbour_accuracy`.
        linear: of `linear_auc`.
    """

    silhouette: Estimate
    neighbours: Estimate
    linear: Estimate


def pca_map(features: ArrayLike) -> Floats:
    """The first two principal components (N, 2) of features.

    Args:
        features: (N, F), N >= 4, F >= 2.

    Raises:
        UserError: there are too few pictures or features, or these are constant or not finite.
    """
    from sklearn.decomposition import PCA  # takes a second to import

    found: Floats = PCA(n_components=2, svd_solver="full").fit_transform(_checked(features))
    return found


def tsne_map(features: ArrayLike, *, perplexity: float | None = None, init: str = "pca", seed: int = 0) -> Floats:
    """Features in two dimensions by t-SNE (van der Maaten & Hinton 2008), as scikit-learn computes it.

    It runs in one thread: several may add up in another order, and t-SNE would make another map of that.

    Args:
        features: (N, F), N >= 4, F >= 2, taken as they are.
        perplexity: about the number of neighbours of a picture; by default `default_perplexity`.
        init: "pca" begins with the first two principal components, and the seed makes no difference; "random" begins
            with noise.
        seed: of what is random.

    Returns:
        (N, 2).

    Raises:
        UserError: as `pca_map`, or the perplexity or init is out of range.
    """
    from sklearn.manifold import TSNE  # takes a second to import
    from threadpoolctl import threadpool_limits

    values = _checked(features)
    chosen = check_perplexity(perplexity, len(values))
    if init not in INITS:
        raise UserError(f"expected an init out of {' and '.join(INITS)}, found {init!r}; pca is usual for one map")
    with threadpool_limits(1):
        found = TSNE(2, perplexity=chosen, init=init, random_state=seed, n_jobs=1).fit_transform(values)
    return np.asarray(found, np.float64)


def tsne_maps(
    features: ArrayLike, *, perplexity: float | None = None, init: str = "random", seeds: Sequence[int] = SEEDS
) -> Floats:
    """A t-SNE map (S, N, 2) for each seed, begun with noise unless told otherwise: only then do seeds show the spread.

    Maps that begin with principal components are all the same, and hide how little one map may tell: of 200 pictures
    with classes close to each other, R of `target_correlation` was 0.18 five times, and 0.04 to 0.26 from noise.

    Args:
        features: as for `tsne_map`.
        perplexity: as for `tsne_map`.
        init: as for `tsne_map`.
        seeds: of what is random.

    Raises:
        UserError: as `tsne_map`, or there are no seeds.
    """
    if not seeds:
        raise UserError("expected one seed or more, found none: 0 to 4 are usual")
    return np.stack([tsne_map(features, perplexity=perplexity, init=init, seed=seed) for seed in seeds])


def check_perplexity(perplexity: float | None, pictures: int) -> float:
    """The perplexity that is asked for, or the default.

    Raises:
        UserError: it is out of range for so many pictures.
    """
    most = (pictures - 1) / 3
    chosen = default_perplexity(pictures) if perplexity is None else perplexity
    if not 1 <= chosen <= most:
        raise UserError(
            f"expected a perplexity from 1 to {most:.4g}, a third of the other pictures, found {chosen:g} for "
            f"{counted(pictures, 'picture')}: give a smaller one or more pictures"
        )
    return chosen


def default_perplexity(pictures: int) -> float:
    """30, or a third of the other pictures where these are fewer than 90: t-SNE looks at three times as many."""
    return min(PERPLEXITY, (pictures - 1) / 3)


def target_correlation(maps: ArrayLike, target: ArrayLike) -> TargetCorrelation:
    """How maps correlate with a target: each axis, both together, and both with each class.

    `statistics.mean_std` of a column tells mean and spread over the seeds of the maps.

    Args:
        maps: (S, N, 2), or (N, 2) for S = 1.
        target: (N,) numbers of classes.

    Raises:
        UserError: the shapes do not fit each other, there are fewer than 4 pictures or there is one class.
    """
    places = np.asarray(maps, np.float64)
    places = places[None] if places.ndim == 2 else places
    numbers = np.asarray(target, np.float64)
    if places.ndim != 3 or places.shape[1:] != (len(numbers), 2):
        raise UserError(
            f"expected maps (S, N, 2) and a target (N,), found {places.shape} and {numbers.shape}: "
            "give the targets of the pictures of the maps"
        )
    labels, count = _classes(numbers)
    indicators = np.eye(count)[labels]  # (N, C)
    shares = np.array([explained_shares(each, np.column_stack([numbers, indicators])) for each in places])
    weight = indicators.var(axis=0)  # (C,)
    return TargetCorrelation(
        axes=np.array([_pearson(each, numbers) for each in places]),
        multiple=np.sqrt(shares[:, 0]),
        per_class=np.sqrt(shares[:, 1:]),
        classes=np.sqrt(shares[:, 1:] @ weight / weight.sum()),
    )


def explained_shares(axes: Floats, targets: Floats) -> Floats:
    """R squared of each target by least squares on all axes and an intercept: (K,); nan for a constant target.

    Args:
        axes: (N, A).
        targets: (N, K).
    """
    x, y = axes - axes.mean(axis=0), targets - targets.mean(axis=0)
    fitted = x @ np.linalg.lstsq(x, y, rcond=None)[0]  # (N, K)
    total = np.square(y).sum(axis=0)
    shares = np.full(targets.shape[1], math.nan)
    np.divide(np.square(fitted).sum(axis=0), total, out=shares, where=total > 0)
    bounded: Floats = np.minimum(shares, 1.0)  # but for rounding
    return bounded


def separation(features: ArrayLike, labels: ArrayLike, groups: ArrayLike, *, seed: int = 0) -> Separation:
    """Silhouette, accuracy of neighbours and AUC of a linear classifier, each with its interval.

    Where there is one group, neighbours are nan; where a class is in one group only, the AUC is nan too.

    Args:
        features: (N, F).
        labels: (N,) classes.
        groups: (N,) patients, or sources where they are not known.
        seed: of folds and resamples.

    Raises:
        UserError: as those three.
    """
    names, members = np.asarray(labels), np.asarray(groups)
    fewest = min(len(np.unique(members[names == name])) for name in np.unique(names))
    unknown = Estimate(math.nan, math.nan, math.nan, len(np.unique(members)))
    return Separation(
        silhouette(features, labels, groups, seed=seed),
        neighbour_accuracy(features, labels, groups, seed=seed) if unknown.groups > 1 else unknown,
        linear_auc(features, labels, groups, seed=seed) if fewest > 1 else unknown,
    )


def silhouette(
    features: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    blocks: int = BLOCKS,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """The mean silhouette of classes (Rousseeuw 1987), -1 to 1, by Euclidean distances of features of length 1.

    It comes from pairs of pictures: an interval from the spread of the values of pictures would be too narrow (of 60
    pictures 74 % hold the true value, of these 93 %). So it is computed again without each block of groups. Pictures of
    the same group are compared too, which makes it larger where groups have several.

    Args:
        features: (N, F).
        labels: (N,) classes.
        groups: (N,).
        blocks: as for `group_intervals.jackknife`.
        seed: of the blocks.
        level: the share of intervals that hold the true value.

    Returns:
        Estimate; without an interval where a class is in one block only.

    Raises:
        UserError: there are too few pictures, one class, or as many as pictures, or features are constant or not
            finite.
    """
    from sklearn.metrics import pairwise_distances, silhouette_score  # takes a second to import

    values, numbers, _ = _labelled(features, labels, groups)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    distances = pairwise_distances(values / np.where(lengths > 0, lengths, 1))  # (N, N)
    classes = len(np.unique(numbers))

    def score(rows: Ints) -> float:
        if not len(np.unique(numbers[rows])) == classes < len(rows):
            return math.nan
        return float(silhouette_score(distances[np.ix_(rows, rows)], numbers[rows], metric="precomputed"))

    return jackknife(score, groups, blocks=blocks, seed=seed, level=level)


def neighbour_accuracy(
    features: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    neighbours: int = NEIGHBOURS,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """The share of pictures whose class the most similar pictures of other groups tell.

    The vote is that of the probe during pre-training, `pretraining.probe.nearest_classes`: by cosine, a neighbour with
    a larger one counting more. The interval takes the pictures that vote as they are: with other ones of their kind the
    accuracy lies in it more rarely (of 40 to 60 groups 88 to 91 %; a jackknife would give 96 to 99 %).

    Args:
        features: (N, F).
        labels: (N,) classes.
        groups: (N,), at least two different ones.
        neighbours: number of those who vote.
        samples: of the bootstrap of groups, see `statistics.bootstrap_interval`.
        seed: of the draws.
        level: the share of intervals that hold the true value.

    Raises:
        UserError: as `silhouette`, there is one group, or no neighbours are to vote.
    """
    values, numbers, patients = _labelled(features, labels, groups)
    if neighbours < 1:
        raise UserError(f"expected 1 neighbour or more, found {neighbours}: {NEIGHBOURS} are usual")
    if patients.max() == 0:
        raise UserError("expected pictures of two groups or more, found one: neighbours are sought in other groups")
    classes = int(numbers.max()) + 1
    tensors = torch.from_numpy(values), torch.from_numpy(numbers), torch.from_numpy(patients)
    found = nearest_classes(*tensors, classes, neighbours=neighbours).numpy()
    run = _predictions(np.arange(len(values)), numbers, patients, np.eye(classes)[found])
    return _estimate([run], accuracy, patients, samples, seed, level)


def linear_auc(
    features: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    folds: int = FOLDS,
    penalties: Sequence[float] = PENALTIES[::4],
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """The area under the ROC curve of a logistic regression on groups that it has not seen: the mean over folds.

    The folds are scikit-learn's StratifiedGroupKFold, fewer where a class is in fewer groups. Within the training part
    of each, three further ones choose the penalty with the least cross-entropy of held-out pictures, the strongest of
    equal ones. Loss, penalty and standardisation are those of `classification.logistic_probe`. Of more than two
    classes it is the mean of each against the rest.

    Args:
        features: (N, F).
        labels: (N,) classes, each in two groups or more.
        groups: (N,).
        folds: 2 or more.
        penalties: of which one is taken, the strongest first.
        samples: of the bootstrap of groups, see `statistics.bootstrap_interval`.
        seed: of folds and draws.
        level: the share of intervals that hold the true value.

    Returns:
        Estimate; nan where a fold lacks a class.

    Raises:
        UserError: as `silhouette`, a class is in one group only, or folds or penalties are out of range.
    """
    values, numbers, patients = _labelled(features, labels, groups)
    if folds < 2 or not penalties or min(penalties) <= 0:
        raise UserError(
            f"expected 2 folds or more and positive penalties, found {folds} and {[*penalties]}: {FOLDS} "
            "folds are usual"
        )
    fewest = min(len(np.unique(patients[numbers == label])) for label in np.unique(numbers))
    if fewest < 2:
        raise UserError("expected each class in two groups or more, found one in a single group: add pictures")
    classes = int(numbers.max()) + 1
    runs = []
    for train, test in _folds(numbers, patients, min(folds, fewest), seed):
        penalty = _best_penalty(values[train], numbers[train], patients[train], penalties, classes, seed)
        (probabilities,) = _regressions(values[train], numbers[train], values[test], [penalty], classes)
        runs.append(_predictions(test, numbers, patients, probabilities))
    return _estimate(runs, auc, patients, samples, seed, level)


def _best_penalty(
    features: Floats, labels: Ints, groups: Ints, penalties: Sequence[float], classes: int, seed: int
) -> float:
    losses = np.zeros(len(penalties))
    for train, test in _folds(labels, groups, min(_INNER_FOLDS, len(np.unique(groups))), seed):
        found = _regressions(features[train], labels[train], features[test], penalties, classes)  # (P, n, C)
        right = found[:, np.arange(len(test)), labels[test]]  # (P, n)
        losses -= np.log(np.maximum(right, np.finfo(np.float64).eps)).sum(axis=1)
    return penalties[int(losses.argmin())]


def _folds(labels: Ints, groups: Ints, folds: int, seed: int) -> Iterator[tuple[Ints, Ints]]:
    """Rows for training and rows held out, which share no group."""
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second to import

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(labels, labels, groups)
        yield from ((train, test) for train, test in splits if len(test))


def _regressions(train: Floats, labels: Ints, test: Floats, penalties: Sequence[float], classes: int) -> Floats:
    """Probabilities (P, n, C) of test pictures for each penalty.

    Of features that are more than the pictures only the directions that the pictures span matter: others get no weight.
    """
    from sklearn.exceptions import ConvergenceWarning  # takes a second to import
    from sklearn.linear_model import LogisticRegression

    found = np.zeros((len(penalties), len(test), classes))
    if len(np.unique(labels)) == 1:
        found[:, :, labels[0]] = 1
        return found
    mean, scale = standardisation(train)
    x, z = (train - mean) / scale, (test - mean) / scale
    if len(x) < x.shape[1]:
        directions = np.linalg.svd(x, full_matrices=False)[2]  # (N, F)
        x, z = x @ directions.T, z @ directions.T
    model = LogisticRegression(max_iter=1000, warm_start=True)
    for row, penalty in enumerate(penalties):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # next to no penalty: it is as good as there
            model.set_params(C=1 / penalty).fit(x, labels)
        found[row][:, model.classes_] = model.predict_proba(z)
    return found


def _predictions(rows: Ints, labels: Ints, groups: Ints, probabilities: Floats) -> Predictions:
    names, patients = [str(row) for row in rows], [str(group) for group in groups[rows]]
    return Predictions(names, patients, ["test"] * len(rows), labels[rows], probabilities)


def _estimate(
    runs: Sequence[Predictions], metric: Metric, groups: Ints, samples: int, seed: int, level: float
) -> Estimate:
    low, high = bootstrap_interval(runs, metric, samples=samples, seed=seed, level=level)
    return Estimate(mean_of_runs(runs, metric), low, high, int(groups.max()) + 1)


def _pearson(axes: Floats, target: Floats) -> Floats:
    """Pearson's r of each axis (N, A) with a target (N,): (A,); nan for a constant axis."""
    x, y = axes - axes.mean(axis=0), target - target.mean()
    size = np.sqrt(np.square(x).sum(axis=0) * np.square(y).sum())
    r = np.full(axes.shape[1], math.nan)
    np.divide(y @ x, size, out=r, where=size > 0)
    return r


def _checked(features: ArrayLike) -> Floats:
    values = np.asarray(features, np.float64)
    if values.ndim != 2 or len(values) < _LEAST or values.shape[1] < 2:
        raise UserError(
            f"expected features (N, F) of {_LEAST} pictures or more, two of each or more, found {values.shape}: "
            "take more pictures, or a layer that has features"
        )
    if bad := int((~np.isfinite(values)).any(axis=1).sum()):
        raise UserError(
            f"expected finite features, found others for {bad} of {counted(len(values), 'picture')}: look for a "
            "network that diverged"
        )
    if np.ptp(values, axis=0).max() <= _CONSTANT * np.abs(values).max():
        raise UserError(
            f"expected features that differ, found the same for all {counted(len(values), 'picture')}: the network "
            "has collapsed, or was given the same picture"
        )
    return values


def _classes(labels: NDArray[np.generic]) -> tuple[Ints, int]:
    """Numbers 0 .. C - 1 of the classes that are there (N,), and how many these are."""
    if len(labels) < _LEAST:
        raise UserError(f"expected {_LEAST} pictures or more, found {len(labels)}: take more pictures")
    names, numbers = np.unique(labels, return_inverse=True)
    if len(names) == 1:
        raise UserError(f"expected two classes or more, found the class {names[0]} alone: take pictures of others too")
    return numbers.astype(np.int64), len(names)


def _labelled(features: ArrayLike, labels: ArrayLike, groups: ArrayLike) -> tuple[Floats, Ints, Ints]:
    """Features, numbers of classes and numbers of groups of the pictures."""
    values, names, patients = _checked(features), np.asarray(labels), np.asarray(groups)
    if not names.shape == patients.shape == (len(values),):
        shapes = listed(str(each.shape) for each in (values, names, patients))
        raise UserError(f"expected a label and a group for each row of features, found {shapes}: give equal lengths")
    numbers, count = _classes(names)
    if count == len(names):
        raise UserError(f"expected fewer classes than pictures, found {count} of both: take several of each class")
    return values, numbers, np.unique(patients, return_inverse=True)[1].astype(np.int64)
