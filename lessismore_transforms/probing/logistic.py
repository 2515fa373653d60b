"""Many logistic regressions on the same features at once: every penalty, inner fold and draw of labels in one matrix.

Each one minimises, over the pictures that are its members,

    sum of -log p(label)  +  penalty / 2 * sum of the squared weights, biases left out

which is scikit-learn's `LogisticRegression(C=1 / penalty)`: one column of weights for two classes, else one for each
class. Features are standardised and turned into the principal axes of the training part, where the Hessian is bounded
by a diagonal (Boehning 1992, Ann. Inst. Stat. Math. 44, 197): the preconditioner of a conjugate gradient (Polak and
Ribiere), whose steps along a line are found by Newton's method without another product of matrices. What is left per
step are two products with all regressions as columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from lessismore_transforms.classification.logistic_probe import standardisation

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TOLERANCE, STEPS = 1e-4, 2000  # the slope at which a regression ends, see `fit`, and the most steps
_SEARCHES, _NEARLY = 40, 0.2  # of the search along a line: the most, and the share of the first slope at which it ends
_LEAST = 1e-6  # slope per picture of the penalty, below which tolerance is no share of it
_TINY = float(np.finfo(np.float64).tiny)
_FLAT = 1e-12  # variance along an axis, as a share of the largest, below which it holds rounding alone
_BOUND = {True: 0.25, False: 0.5}  # of the second derivative of the loss by a score: of two classes, of several


@dataclass(frozen=True, eq=False)
class Basis:
    """The principal axes of standardised features.

    Args:
        mean: (F,) that is subtracted.
        scale: (F,) that is divided by.
        axes: (F, R), orthonormal columns.
    """

    mean: Floats
    scale: Floats
    axes: Floats

    @classmethod
    def of(cls, features: Floats) -> Basis:
        """The axes of features (N, F); there are at most min(N, F), and none that is constant."""
        mean, scale = standardisation(features)
        values = (features - mean) / scale
        wide = values.shape[0] < values.shape[1]
        variances, vectors = np.linalg.eigh(values @ values.T if wide else values.T @ values)
        kept = variances > _FLAT * max(variances[-1], 0)
        variances, vectors = variances[kept], vectors[:, kept]
        return cls(mean, scale, values.T @ (vectors / np.sqrt(variances)) if wide else vectors)

    def __call__(self, features: Floats) -> Floats:
        """Coordinates (N, R) of features (N, F)."""
        coordinates: Floats = ((features - self.mean) / self.scale) @ self.axes
        return coordinates


@dataclass(frozen=True, eq=False)
class Regressions:
    """The solutions of B regressions.

    Args:
        weights: (R + 1, B, K), the last row holds the biases; K is 1 for two classes.
        converged: (B,).
    """

    weights: Floats
    converged: NDArray[np.bool_]

    def probabilities(self, coordinates: Floats) -> Floats:
        """The probabilities (N, B, C) of pictures with coordinates (N, R)."""
        scores = _product(_with_ones(coordinates), self.weights)
        if scores.shape[2] > 1:
            found: Floats = softmax(scores, axis=2)
            return found
        return np.concatenate([expit(-scores), expit(scores)], axis=2)


def fit(
    coordinates: Floats,
    labels: Integers,
    classes: int,
    *,
    members: NDArray[np.bool_],
    penalties: Floats,
    tolerance: float = TOLERANCE,
    steps: int = STEPS,
) -> Regressions:
    """Fit B regressions.

    Args:
        coordinates: (N, R), see `Basis`.
        labels: (N,), 0..classes - 1.
        classes: number of classes, 2 or more; one without a member gets a probability near 0.
        members: (N, B), which pictures a regression is fitted to.
        penalties: (B,), above 0.
        tolerance: a regression ends where no slope of its loss is larger than this share of the penalty's largest one,
            as at the minimum the slope of the pictures is that of the penalty. A bound that does not know the penalty
            would end weak ones much too early, where pictures can be told apart without an error.
        steps: the most that are taken.
    """
    problem = _Problem(coordinates, labels, classes, members, np.asarray(penalties, np.float64))
    weights = np.zeros((problem.inputs.shape[1], len(penalties), problem.columns))
    converged = np.zeros(len(penalties), bool)
    active = np.arange(len(penalties))
    state = _Descent(problem)
    for _ in range(steps):
        state.step()
        ended = state.slope() <= tolerance
        if ended.any():
            weights[:, active[ended]] = state.weights[:, ended]
            converged[active[ended]] = True
            active, state = active[~ended], state.of(~ended)
        if not len(active):
            break
    weights[:, active] = state.weights
    return Regressions(weights, converged)


class _Problem:
    """What stays the same while regressions are fitted; N pictures, B regressions, K columns of scores."""

    def __init__(
        self, coordinates: Floats, labels: Integers, classes: int, members: NDArray[np.bool_], penalties: Floats
    ) -> None:
        self.two = classes == 2
        self.columns = 1 if self.two else classes
        self.inputs = _with_ones(coordinates)  # (N, R + 1)
        self.targets = (labels[:, None] if self.two else np.eye(classes)[labels])[:, None].astype(float)  # (N, 1, K)
        self.members = members.astype(float)[..., None]  # (N, B, 1)
        self.ridge = np.repeat(penalties[None, :, None], self.inputs.shape[1], axis=0)  # (R + 1, B, 1)
        self.ridge[-1] = 0
        self.least = np.maximum(_LEAST * members.sum(axis=0), _TINY)  # (B,), the slope that is none; weights may be 0
        curvature = np.square(self.inputs).T @ members.astype(float)  # (R + 1, B)
        self.preconditioner = 1 / (_BOUND[self.two] * curvature[..., None] + self.ridge + _TINY)

    def of(self, chosen: NDArray[np.bool_]) -> _Problem:
        """Some of the regressions."""
        part = object.__new__(_Problem)
        part.__dict__ |= self.__dict__
        part.members, part.ridge = self.members[:, chosen], self.ridge[:, chosen]
        part.least, part.preconditioner = self.least[chosen], self.preconditioner[:, chosen]
        return part

    def probabilities(self, scores: Floats) -> Floats:
        """(N, B, K) of scores (N, B, K)."""
        found: Floats = expit(scores) if self.two else softmax(scores, axis=2)
        return found

    def gradient(self, scores: Floats, weights: Floats) -> Floats:
        """(R + 1, B, K)."""
        residuals = (self.probabilities(scores) - self.targets) * self.members
        return _product(self.inputs.T, residuals) + self.ridge * weights

    def slopes(self, scores: Floats, along: Floats) -> tuple[Floats, Floats]:
        """First and second derivative (B,) of the loss along a direction of the scores (N, B, K)."""
        p = self.probabilities(scores)
        first = ((p - self.targets) * along * self.members).sum(axis=(0, 2))
        if self.two:
            curved = p * (1 - p) * along * along
        else:
            mean = (p * along).sum(axis=2, keepdims=True)
            curved = p * (along - mean) ** 2
        return first, (curved * self.members).sum(axis=(0, 2))


class _Descent:
    """Preconditioned conjugate gradients of all regressions of a problem, from weights of 0."""

    def __init__(self, problem: _Problem) -> None:
        shape = (problem.inputs.shape[1], problem.members.shape[1], problem.columns)
        self.problem, self.weights = problem, np.zeros(shape)
        self.scores = np.zeros((len(problem.inputs), *shape[1:]))
        self.gradient = problem.gradient(self.scores, self.weights)
        self.direction = -problem.preconditioner * self.gradient

    def of(self, chosen: NDArray[np.bool_]) -> _Descent:
        """The state of some of the regressions."""
        part = object.__new__(_Descent)
        part.problem = self.problem.of(chosen)
        for name in ("weights", "scores", "gradient", "direction"):
            setattr(part, name, getattr(self, name)[:, chosen])
        return part

    def slope(self) -> Floats:
        """The largest slope (B,) of each loss, as a share of the largest one of its penalty."""
        penalty = np.abs(self.problem.ridge * self.weights).max(axis=(0, 2))
        largest: Floats = np.abs(self.gradient).max(axis=(0, 2))
        share: Floats = largest / np.maximum(penalty, self.problem.least)
        return share

    def step(self) -> None:
        """Go down along the direction, and choose the next one."""
        problem = self.problem
        along = _product(problem.inputs, self.direction)  # (N, B, K)
        length = self._length(along)[:, None]  # (B, 1)
        self.weights = self.weights + length * self.direction
        self.scores = self.scores + length * along
        before, steep = self.gradient, problem.preconditioner * self.gradient
        self.gradient = problem.gradient(self.scores, self.weights)
        downhill = problem.preconditioner * self.gradient
        share = _dot(downhill, self.gradient - before) / np.maximum(_dot(steep, before), _TINY)
        self.direction = np.maximum(share, 0)[:, None] * self.direction - downhill
        uphill = _dot(self.direction, self.gradient) >= 0
        self.direction[:, uphill] = -downhill[:, uphill]

    def _length(self, along: Floats) -> Floats:
        """How far (B,) each loss falls along its direction, nearly to the lowest point: Newton between two bounds.

        The loss is convex, so that it is lower than at the start wherever it still falls.
        """
        problem = self.problem
        ridge = problem.ridge * self.direction
        linear, square = _dot(ridge, self.weights), _dot(ridge, self.direction)
        low, high = np.zeros(len(linear)), np.full(len(linear), np.inf)  # it falls at the one, and rises at the other
        length = np.zeros(len(linear))
        start = None
        for _ in range(_SEARCHES):
            first, second = problem.slopes(self.scores + length[:, None] * along, along)
            slope, curved = first + linear + length * square, second + square
            start = -slope if start is None else start  # above 0
            if (np.abs(slope) <= _NEARLY * start).all():
                break
            falls = slope < 0
            low, high = np.where(falls, length, low), np.where(falls, high, length)
            wanted = length - slope / np.maximum(curved, _TINY)
            halves = np.where(np.isinf(high), 2 * low + (low == 0), (low + high) / 2)
            inside = (wanted > low) & (wanted < np.minimum(high, 10 * np.maximum(low, wanted * (low == 0))))
            ended = np.abs(slope) <= _NEARLY * start
            length = np.where(ended, length, np.where(inside, wanted, halves))
        return length


def _with_ones(coordinates: Floats) -> Floats:
    return np.hstack([coordinates, np.ones((len(coordinates), 1))])


def _product(matrix: Floats, columns: Floats) -> Floats:
    """A matrix (M, N) times columns (N, B, K): (M, B, K)."""
    found: Floats = (matrix @ columns.reshape(len(columns), -1)).reshape(len(matrix), *columns.shape[1:])
    return found


def _dot(one: Floats, other: Floats) -> Floats:
    """The products (B,) of columns (R, B, K)."""
    found: Floats = np.einsum("rbk,rbk->b", one, other)
    return found
