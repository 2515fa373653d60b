"""Arms of a comparison: what is repeated in one is told apart from what differs between two.

Pre-trainings of one kind with several seeds are one arm, and so are the runs from scratch, whose random weights are
their seeds. Fine-tuning again, or on another fold, makes no new network of an arm.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lessismore_transforms.classification.finished_runs import FinishedRuns, Fold, comparable_settings, difference
from lessismore_transforms.classification.predictions import Predictions

SCRATCH, ALL = "scratch", "ALL"
_OF_MODES = ("frozen_epochs", "linear_recipe")  # settings that are others in each mode


@dataclass(frozen=True, eq=False)
class Arm:
    """One way of pre-training, or of none, on one task.

    Args:
        name: in the table.
        evaluations: runs of each pre-training.
    """

    name: str
    evaluations: tuple[FinishedRuns, ...]

    @property
    def first(self) -> FinishedRuns:
        """The evaluation that stands for all in what they share: task, classes, labels, mode."""
        return self.evaluations[0]

    @property
    def runs(self) -> list[Predictions]:
        """All runs."""
        return [run for each in self.evaluations for run in each.runs.values()]

    @property
    def pretrainings(self) -> int:
        """The number of pre-trainings; none from scratch."""
        return 0 if self.first.mode == SCRATCH else len(self.evaluations)

    @property
    def folds(self) -> set[Fold]:
        """The folds, of all repeats, that all pre-trainings have; empty where the task has none."""
        return set.intersection(*(set(each.folds.values()) for each in self.evaluations))

    def networks(self, folds: Collection[Fold] | None = None) -> list[list[Predictions]]:
        """What is drawn anew when the arm is repeated, each as its runs: pre-trainings, or runs from scratch.

        A cross-validation from scratch is one: its networks are scored on other pictures each.

        Args:
            folds: to be used only; None takes all runs.
        """
        chosen = [
            [run for number, run in each.runs.items() if folds is None or each.folds.get(number) in folds]
            for each in self.evaluations
        ]
        if self.first.mode == SCRATCH and not self.first.folds:
            return [[run] for runs in chosen for run in runs]
        return chosen


def arms_of(evaluations: Mapping[str, FinishedRuns]) -> list[Arm]:
    """The arms in evaluations of one task, in the order of their first ones.

    Evaluations are of one arm where all labels are given and equal, settings and test pictures too, and the weights are
    others, after equally many epochs and iterations. Anything else cannot be told from what is compared, and is an arm
    of its own.

    Args:
        evaluations: by name.
    """
    groups: list[list[str]] = []
    for name, each in evaluations.items():
        fitting = (group for group in groups if all(_repeats(each, evaluations[other]) for other in group))
        group = next(fitting, None)
        if group is None:
            groups.append([name])
        else:
            group.append(name)
    return [
        Arm(f"{names[0]} + {len(names) - 1} more" if len(names) > 1 else names[0], tuple(evaluations[n] for n in names))
        for names in groups
    ]


def contrasts_of(
    arms: Sequence[Arm], *, baseline: Arm | None = None, pairs: Sequence[tuple[str, str]] | None = None
) -> list[tuple[Arm, Arm]]:
    """The comparisons of one task: an arm, and what it is compared with.

    Args:
        arms: of the task.
        baseline: with which all others are compared.
        pairs: of reductions; without a baseline, the first is compared with the second in each data set and method.
            None compares each reduction with ALL.
    """
    if baseline is not None:
        return [(arm, baseline) for arm in arms if arm is not baseline]
    return [(arm, same[0]) for arm, _, same in _counterparts(arms, pairs) if len(same) == 1]


def ambiguous_contrasts(
    arms: Sequence[Arm], *, pairs: Sequence[tuple[str, str]] | None = None
) -> list[tuple[Arm, str, list[Arm]]]:
    """The arms for which there are several to compare with, with the reduction of these and themselves.

    Args:
        arms: of the task.
        pairs: as for `contrasts_of`.
    """
    return [found for found in _counterparts(arms, pairs) if len(found[2]) > 1]


def unlike(arm: Arm, other: Arm) -> list[str]:
    """In which settings, and lengths of pre-training, two arms differ, but for what their labels and modes say."""
    ours, theirs = comparable_settings(arm.first), comparable_settings(other.first)
    names = [name for name in {**ours, **theirs} if name not in ("mode", "method")]
    if arm.first.mode != other.first.mode:
        names = [name for name in names if name in ours and name in theirs and name not in _OF_MODES]
    found = [f"{n} {ours.get(n)}, there {theirs.get(n)}" for n in names if ours.get(n) != theirs.get(n)]
    if SCRATCH in (arm.first.mode, other.first.mode):
        return found
    lengths = {name: (_lengths(arm, name), _lengths(other, name)) for name in ("epochs", "iterations")}
    # Equal epochs, or equal steps, are a design; an epoch that is the first may be any part of one.
    if any(one == there and one not in ({None}, {1}) for one, there in lengths.values()):
        return found
    differing = {name: pair for name, pair in lengths.items() if pair[0] != pair[1]}
    return found + [
        f"{name} of pre-training {_said(one)}, there {_said(there)}" for name, (one, there) in differing.items()
    ]


def _lengths(arm: Arm, name: str) -> set[int | None]:
    return {length for each in arm.evaluations for length in getattr(each, name)}


def _said(lengths: set[int | None]) -> str:
    return " and ".join("not known" if each is None else str(each) for each in sorted(lengths, key=lambda x: x or 0))


def _counterparts(arms: Sequence[Arm], pairs: Sequence[tuple[str, str]] | None) -> Iterator[tuple[Arm, str, list[Arm]]]:
    """Each arm with a reduction that it is to be compared with, and the arms of that."""
    for arm in arms:
        reduction = arm.first.labels[2]
        if arm.first.mode == SCRATCH or None in arm.first.labels:
            continue
        wanted = [ALL] if pairs is None else [other for first, other in pairs if first == reduction]
        for other in wanted:
            dataset, method, _, *how = _kind(arm)
            same = [each for each in arms if each is not arm and _kind(each) == (dataset, method, other, *how)]
            if other != reduction:
                yield arm, other, same


def _kind(arm: Arm) -> tuple[Any, ...]:
    return *arm.first.labels, arm.first.mode, arm.first.rescored


def _repeats(one: FinishedRuns, other: FinishedRuns) -> bool:
    """Whether two evaluations are of two pre-trainings of one arm."""
    if one.mode == SCRATCH or one.rescored or other.rescored or None in (*one.labels, *one.weights, *other.weights):
        return False
    names = ("classes", "positive", "mode", "labels", "epochs", "iterations")
    equal = all(getattr(one, name) == getattr(other, name) for name in names)
    if not equal or comparable_settings(one) != comparable_settings(other) or one.weights & other.weights:
        return False
    tests = {each.folds.get(number): run for each in (other,) for number, run in each.runs.items()}
    pairs = ((run, tests.get(one.folds.get(number))) for number, run in one.runs.items())
    return not any(difference(run, test) for run, test in pairs if test is not None)
