"""What to keep of a volume: a rule with a threshold, a fraction or a step, and its application to a ranking.

Rules that compare slices remove at distance `<= threshold`, or at similarity `>= threshold`:

- `pairs`, the paper's text (Section 2.1): walk down the pairs from most to least similar and remove the later slice
  of each. Nested, so every threshold and every fraction is a filter over one ranking.
- `exemplars`, the released scripts: walk through the slices in order and keep a slice unless one that was kept before
  is within the threshold. Not nested; needs all distances, which for HASH come from the hashes in the manifest.

`every_n` and `all` compare nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.measures import MEASURES
from lessismore_transforms.reduction.selection import (
    Ranking,
    evenly,
    every_mm,
    every_nth,
    exemplar_walk,
    exemplars,
    target_count,
)
from lessismore_transforms.wording import counted, plural

METHODS = (*MEASURES, "every_n", "all")
RULES = ("exemplars", "pairs")
SCOPES = ("volume", "patient", "all")
DEFAULT_BITS = 6.0  # the paper's best HASH threshold (Tables 5 and 6)
DEFAULT_FRACTION = 0.1  # the paper's Evaluation B, which compares all methods at a tenth


@dataclass(frozen=True)
class Kept:
    """Which slices of a volume stay.

    Args:
        kept: (n,) bool.
        kept_by: (n,) index of the slice that stands for a removed one, -1 where there is none.
        distance: (n,) distance to that slice in the measure's unit, nan where there is none.
    """

    kept: NDArray[np.bool_]
    kept_by: NDArray[np.int64]
    distance: NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """A method with its amount; `Target.of` checks them and fills in the defaults.

    Args:
        method: a measure of redundancy, `every_n` or `all`.
        rule: `exemplars` or `pairs` for a measure, else the method.
        threshold: at which a slice is redundant, in the measure's own unit.
        fraction: share of a volume's slices to keep, in (0, 1].
        step: keep every step-th slice; `every_n`.
        step_mm: keep a slice every so many mm; `every_n`.
        offset: the first slice to keep, as an index or in mm; `every_n`.
        scope: what a slice is compared with: its own `volume`, all of its `patient`, or `all` slices.
    """

    method: str
    rule: str
    threshold: float | None = None
    fraction: float | None = None
    step: int | None = None
    step_mm: float | None = None
    offset: float = 0
    scope: str = "volume"

    @property
    def measure(self) -> str:
        """The measure whose ranking a run makes: the method's own, or HASH, which costs nothing."""
        return self.method if self.method in MEASURES else "hash"

    @classmethod
    def of(
        cls,
        *,
        method: str = "hash",
        rule: str | None = None,
        threshold: float | None = None,
        fraction: float | None = None,
        step: int | None = None,
        step_mm: float | None = None,
        offset: float = 0,
        scope: str = "volume",
    ) -> Target:
        """A checked target: by default HASH at 6 bits, a tenth for the other methods.

        A HASH threshold takes exemplars by default, everything else pairs.

        Raises:
            UserError: an unknown method or rule, a value out of range, values that exclude each other.
        """
        if method not in METHODS:
            raise UserError(f"expected a method out of {', '.join(METHODS)}, found {method!r}")
        if rule == method:
            rule = None
        if scope not in SCOPES:
            raise UserError(f"expected a scope out of {', '.join(SCOPES)}, found {scope!r}")
        if scope != "volume" and (method != "hash" or rule == "pairs" or fraction is not None):
            raise UserError(f"the scope {scope} goes with HASH, a threshold and the rule exemplars: drop one")
        if rule is not None and rule not in RULES:
            raise UserError(f"expected a rule out of {', '.join(RULES)}, found {rule!r}")
        _check_amounts(method, {"threshold": threshold, "fraction": fraction, "step": step, "step_mm": step_mm})
        if method not in MEASURES:
            if rule is not None:
                raise UserError(f"the method {method} has no rule {rule!r}: drop it")
            return cls(method, method, **_steps(fraction, step, step_mm, offset) if method == "every_n" else {})
        if offset:
            raise UserError(f"only every_n has an offset, found {offset:g} for {method}: drop it")
        return cls._of_measure(method, rule, threshold, fraction, scope)

    @classmethod
    def _of_measure(
        cls, method: str, rule: str | None, threshold: float | None, fraction: float | None, scope: str
    ) -> Target:
        """The checked target of a method that compares slices."""
        if rule == "exemplars" and fraction is not None:
            raise UserError("the exemplar rule cannot hit a fraction: give a threshold, or the rule pairs")
        if threshold is None and fraction is None and (method != "hash" or rule == "pairs"):
            if rule == "exemplars":
                raise UserError(f"the exemplar rule needs a threshold: give one for {method}")
            fraction = DEFAULT_FRACTION if method != "hash" else None
        if fraction is not None:
            return cls(method, "pairs", fraction=float(fraction))
        threshold = DEFAULT_BITS if threshold is None else float(threshold)
        measure = MEASURES[method]
        if not measure.low <= threshold <= measure.high or (measure.whole and not threshold.is_integer()):
            kind = f"{measure.low:g} to {measure.high:g}{' whole bits' if measure.whole else ''}"
            raise UserError(f"expected a {measure.title} threshold of {kind}, found {threshold:g}")
        return cls(method, rule or ("exemplars" if method == "hash" else "pairs"), threshold=threshold, scope=scope)

    def as_dict(self) -> dict[str, Any]:
        """The target as JSON holds it; `Target.of(**target.as_dict())` is the target again."""
        content = {"method": self.method, "rule": self.rule, "threshold": self.threshold, "fraction": self.fraction}
        if self.method == "every_n":
            content |= {"step": self.step, "step_mm": self.step_mm, "offset": self.offset}
        if self.scope != "volume":
            content["scope"] = self.scope
        return content

    def __str__(self) -> str:
        """For people: `HASH at 6 bits, rule exemplars`."""
        if self.method == "all":
            return "ALL slices"
        name = MEASURES[self.method].title if self.method in MEASURES else "EveryN"
        if self.fraction is not None:
            amount = f"to {self.fraction:.4g} of each volume"
        elif self.step is not None:
            amount = f"every {counted(self.step, 'slice')}"
        elif self.step_mm is not None:
            amount = f"every {self.step_mm:g} mm"
        else:
            assert self.threshold is not None
            amount = f"at {self.threshold:g}" + (f" {plural(self.threshold, 'bit')}" if self.method == "hash" else "")
        scope = {"volume": "", "patient": ", within each patient", "all": ", among all slices"}[self.scope]
        return f"{name} {amount}" + (f", rule {self.rule}" if self.rule in RULES else "") + scope


def _check_amounts(method: str, amounts: dict[str, float | None]) -> None:
    """Refuse an amount that does not belong to the method, several of them, and a fraction out of range."""
    given = {name: value for name, value in amounts.items() if value is not None}
    allowed = {"all": (), "every_n": ("fraction", "step", "step_mm")}.get(method, ("threshold", "fraction"))
    if wrong := [name for name in given if name not in allowed]:
        expected = " or a ".join(allowed) or "nothing more"
        raise UserError(f"expected for {method} a {expected}, found a {wrong[0]}: drop it")
    if len(given) > 1:
        found = " and ".join(f"{name} {value:g}" for name, value in given.items())
        raise UserError(f"expected a {' or a '.join(given)}, found both ({found}): drop one")
    if not 0 < given.get("fraction", 1) <= 1:
        raise UserError(f"expected a fraction above 0 and up to 1, found {given['fraction']:g}")


def _steps(fraction: float | None, step: int | None, step_mm: float | None, offset: float) -> dict[str, Any]:
    """The checked amount of `every_n`."""
    if fraction is None and step is None and step_mm is None:
        fraction = DEFAULT_FRACTION
    if step is not None and not (step >= 1 and float(step).is_integer()):
        raise UserError(f"expected a step of at least 1 slice, found {step:g}")
    if step_mm is not None and not 0 < step_mm < math.inf:
        raise UserError(f"expected a finite step above 0 mm, found {step_mm:g}")
    if offset and fraction is not None:
        raise UserError(f"an offset goes with a step, found a fraction and the offset {offset:g}: drop one")
    if not 0 <= offset < (step or step_mm or 1) or (step is not None and not float(offset).is_integer()):
        raise UserError(f"expected an offset from 0 to below the step, found {offset:g}")
    return {"fraction": fraction, "step": None if step is None else int(step), "step_mm": step_mm, "offset": offset}


def choose(
    target: Target,
    ranking: Ranking,
    candidate: NDArray[np.bool_],
    *,
    positions_mm: NDArray[np.float64],
    distances_from: Callable[[int], NDArray[Any]] | None = None,
    order: NDArray[np.int64] | None = None,
) -> Kept:
    """The slices of one volume that `target` keeps.

    Args:
        target: method, rule and amount.
        ranking: the pair rule's, of the target's measure; a candidate without rank (0) outlasts those that have one.
        candidate: (n,) slices that can be kept.
        positions_mm: (n,) places along the slice axis, ascending.
        distances_from: distances (n,) of one slice to all in the measure's unit; the exemplar rule needs it.
        order: (n,) in which the exemplar rule walks through the slices; by default that of the indices.

    Raises:
        UserError: the target goes beyond a ranking that stopped early.
    """
    if target.rule == "exemplars":
        assert target.threshold is not None
        assert distances_from is not None
        return _choose_exemplars(target, distances_from, candidate, order)
    count = int(candidate.sum())
    if target.method not in MEASURES:
        kept = np.zeros(len(candidate), dtype=bool)
        if not count:
            return Kept(kept, np.full(len(kept), -1), np.full(len(kept), np.nan))
        kept[np.flatnonzero(candidate)] = _choose_by_place(target, positions_mm[candidate])
        return Kept(kept, np.full(len(kept), -1), np.full(len(kept), np.nan))
    similarity = MEASURES[target.method].similarity
    unranked = int((candidate & (ranking.rank == 0)).sum())
    if target.fraction is not None:
        wanted = target_count(count, target.fraction) if count else 0
        if wanted < unranked:
            raise UserError(_too_far(target, unranked, count))
        kept = candidate & (ranking.rank <= wanted)
    else:
        assert target.threshold is not None
        if unranked > 1:  # a single one is the survivor
            ends = ranking.removed_at[candidate & (ranking.rank > 0)]
            last = (ends.min() if similarity else ends.max()) if len(ends) else np.nan
            if not (target.threshold > last if similarity else target.threshold < last):
                raise UserError(_too_far(target, unranked, count))
        removed = ranking.removed_at >= target.threshold if similarity else ranking.removed_at <= target.threshold
        kept = candidate & ~removed
    return Kept(kept, np.where(kept, -1, ranking.removed_by), np.where(kept, np.nan, ranking.removed_at))


def _too_far(target: Target, unranked: int, count: int) -> str:
    return (
        f"{target} goes beyond the ranking, which stopped at {unranked} of {counted(count, 'slice')} of a volume: "
        "ask for more slices, or reduce again with a threshold or a smaller fraction"
    )


def _choose_by_place(target: Target, positions_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    count = len(positions_mm)
    if target.method == "all":
        return np.ones(count, dtype=bool)
    if target.step is not None:
        return every_nth(count, target.step, offset=int(target.offset))
    if target.step_mm is not None:
        order = np.argsort(positions_mm, kind="stable")  # as released, slices may run from head to feet
        kept = np.zeros(count, dtype=bool)
        kept[order] = every_mm(positions_mm[order], target.step_mm, offset_mm=target.offset)
        return kept
    assert target.fraction is not None
    return evenly(count, target_count(count, target.fraction))


def _choose_exemplars(
    target: Target,
    distances_from: Callable[[int], NDArray[Any]],
    candidate: NDArray[np.bool_],
    order: NDArray[np.int64] | None,
) -> Kept:
    assert target.threshold is not None
    walk = exemplar_walk(candidate, order)
    similarity = MEASURES[target.method].similarity
    result = exemplars(
        lambda place: distances_from(int(walk[place]))[walk], len(walk), target.threshold, similarity=similarity
    )
    kept = np.zeros(len(candidate), dtype=bool)
    kept_by, distance = np.full(len(candidate), -1), np.full(len(candidate), np.nan)
    kept[walk] = result.kept
    kept_by[walk] = np.where(result.kept, -1, walk[result.kept_by])
    distance[walk] = np.where(result.kept, np.nan, result.distance)
    return Kept(kept, kept_by, distance)


def text_order(first: int, count: int) -> NDArray[np.int64]:
    """Indices of slices numbered `first`, `first + 1`, ... in the order of their numbers as text, unpadded.

    The released scripts sort file names this way (1, 10, 100, 101, ..., 11, ...), which decides who survives.
    """
    return np.asarray(sorted(range(count), key=lambda i: str(first + i)), dtype=np.int64)
