"""What to keep of a volume: a rule with a threshold, a fraction or a step, and its application to a ranking.

Rules that compare slices remove at distance `<= threshold`, or at similarity `>= threshold`:

- `pairs`, the paper's text (Section 2.1): walk down the pairs from most to least similar and remove the later slice
  of each. Nested, so every threshold and every fraction is a filter over one ranking.
- `exemplars`, the released scripts: walk through the slices in order and keep a slice unless one that was kept before
  is within the threshold. Not nested; needs all distances, which for HASH come from the hashes in the manifest.

`every_n`, `random` and `all` compare nothing. They may keep as many slices of each volume as another selection does
(`like`), and a HASH selection may keep some of the nearest slices beside each exemplar (`near`): the controls of an
experiment that asks whether it matters which slices are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.measures import MEASURES
from lessismore_transforms.reduction.placing import AMOUNTS, DEFAULT_FRACTION, check_places, choose_places
from lessismore_transforms.reduction.selection import Exemplars, Ranking, exemplar_walk, exemplars, target_count
from lessismore_transforms.wording import counted, plural

METHODS = (*MEASURES, "every_n", "random", "all")
RULES = ("exemplars", "pairs")
SCOPES = ("volume", "patient", "all")
DEFAULT_BITS = 6.0  # the paper's best HASH threshold (Tables 5 and 6)


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
        method: a measure of redundancy, `every_n`, `random` or `all`.
        rule: `exemplars` or `pairs` for a measure, else the method.
        threshold: at which a slice is redundant, in the measure's own unit.
        fraction: share of a volume's slices to keep, in (0, 1].
        step: keep every step-th slice; `every_n`.
        step_mm: keep a slice every so many mm; `every_n`.
        offset: the first slice to keep, as an index or in mm; `every_n`.
        scope: what a slice is compared with: its own `volume`, all of its `patient`, or `all` slices.
        like: name of another selection, of which each volume's number of kept slices is taken; `every_n`, `random`.
        near: so many of the slices that an exemplar stands for stay beside it, the nearest first; rule `exemplars`.
        seed: of the draw; `random`.
    """

    method: str
    rule: str
    threshold: float | None = None
    fraction: float | None = None
    step: int | None = None
    step_mm: float | None = None
    offset: float = 0
    scope: str = "volume"
    like: str | None = None
    near: int = 0
    seed: int = 0

    @property
    def compares(self) -> bool:
        """Whether slices are compared; otherwise their place or chance decides."""
        return self.method in MEASURES

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
        like: str | None = None,
        near: int = 0,
        seed: int = 0,
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
        amounts = {"threshold": threshold, "fraction": fraction, "step": step, "step_mm": step_mm, "like": like}
        _check_amounts(method, amounts)
        if seed and method != "random":
            raise UserError(f"only random has a seed, found {seed} for {method}: drop it")
        if offset and method != "every_n":
            raise UserError(f"only every_n has an offset, found {offset:g} for {method}: drop it")
        if method not in MEASURES:
            if rule is not None:
                raise UserError(f"the method {method} has no rule {rule!r}: drop it")
            target = cls(method, method, **check_places(method, fraction, step, step_mm, offset, like, seed))
        else:
            target = cls._of_measure(method, rule, threshold, fraction, scope)
        return replace(target, near=_checked_near(target, near))

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
        usual = {"scope": "volume", "like": None, "near": 0, "seed": 0}
        return content | {name: getattr(self, name) for name, value in usual.items() if getattr(self, name) != value}

    def __str__(self) -> str:
        """For people: `HASH at 6 bits, rule exemplars`."""
        if self.method == "all":
            return "ALL slices"
        name = {"every_n": "EveryN", "random": "Random"}.get(self.method) or MEASURES[self.method].title
        if self.like is not None:
            amount = f"as many of each volume as in {self.like}"
        elif self.fraction is not None:
            amount = f"to {self.fraction:.4g} of each volume"
        elif self.step is not None:
            amount = f"every {counted(self.step, 'slice')}"
        elif self.step_mm is not None:
            amount = f"every {self.step_mm:g} mm"
        else:
            assert self.threshold is not None
            amount = f"at {self.threshold:g}" + (f" {plural(self.threshold, 'bit')}" if self.method == "hash" else "")
        scope = {"volume": "", "patient": ", within each patient", "all": ", among all slices"}[self.scope]
        rule = f", rule {self.rule}" if self.rule in RULES else ""
        near = f", with the nearest {counted(self.near, 'slice')} beside each" if self.near else ""
        seed = f", seed {self.seed}" if self.method == "random" else ""
        return f"{name} {amount}{rule}{near}{seed}{scope}"


def _check_amounts(method: str, amounts: dict[str, Any]) -> None:
    """Refuse an amount that does not belong to the method, several of them, and a fraction out of range."""
    given = {name: value for name, value in amounts.items() if value is not None}
    allowed = AMOUNTS.get(method, ("threshold", "fraction"))
    if wrong := [name for name in given if name not in allowed]:
        expected = " or a ".join(allowed) or "nothing more"
        raise UserError(f"expected for {method} a {expected}, found a {wrong[0]}: drop it")
    if len(given) > 1:
        found = " and ".join(f"{name} {value}" for name, value in given.items())
        raise UserError(f"expected a {' or a '.join(given)}, found both ({found}): drop one")
    if not 0 < given.get("fraction", 1) <= 1:
        raise UserError(f"expected a fraction above 0 and up to 1, found {given['fraction']:g}")


def _checked_near(target: Target, near: int) -> int:
    if near < 0 or not float(near).is_integer():
        raise UserError(f"expected near to be a whole number of slices from 0, found {near:g}")
    if near and (target.rule != "exemplars" or target.scope != "volume"):
        raise UserError(f"only the rule exemplars within a volume keeps near slices, found {target}: drop near")
    return int(near)


def choose(
    target: Target,
    ranking: Ranking,
    candidate: NDArray[np.bool_],
    *,
    positions_mm: NDArray[np.float64],
    distances_from: Callable[[int], NDArray[Any]] | None = None,
    order: NDArray[np.int64] | None = None,
    hashes: NDArray[np.uint64] | None = None,
    count: int | None = None,
) -> Kept:
    """The slices of one volume that `target` keeps.

    Args:
        target: method, rule and amount.
        ranking: the pair rule's, of the target's measure; a candidate without rank (0) outlasts those that have one.
        candidate: (n,) slices that can be kept.
        positions_mm: (n,) places along the slice axis, ascending.
        distances_from: distances (n,) of one slice to all in the measure's unit; the exemplar rule needs it.
        order: (n,) in which the exemplar rule walks through the slices; by default that of the indices.
        hashes: (n,) by which `random` tells one volume from another.
        count: number of slices to keep, for a target that is like another selection.

    Raises:
        UserError: the target goes beyond a ranking that stopped early.
    """
    if target.rule == "exemplars":
        assert target.threshold is not None
        assert distances_from is not None
        return _choose_exemplars(target, distances_from, candidate, order)
    if target.method not in MEASURES:
        kept = np.zeros(len(candidate), dtype=bool)
        if target.like is not None and count is None:
            raise UserError(f"expected a selection {target.like!r} to be like, found none here: use `select`")
        if candidate.any():
            own = None if hashes is None else hashes[candidate]
            kept[candidate] = choose_places(
                target.method,
                positions_mm[candidate],
                fraction=target.fraction,
                step=target.step,
                step_mm=target.step_mm,
                offset=target.offset,
                seed=target.seed,
                hashes=own,
                count=count,
            )
        return Kept(kept, np.full(len(kept), -1), np.full(len(kept), np.nan))
    count = int(candidate.sum())
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
    stays = result.kept | _nearest(result, target.near, similarity=similarity)
    kept[walk] = stays
    kept_by[walk] = np.where(stays, -1, walk[result.kept_by])
    distance[walk] = np.where(stays, np.nan, result.distance)
    return Kept(kept, kept_by, distance)


def _nearest(found: Exemplars, count: int, *, similarity: bool) -> NDArray[np.bool_]:
    """The removed slices (n,) that are among the `count` nearest of their exemplar; of equals the first in the walk."""
    removed = np.flatnonzero(~found.kept)
    distance = -found.distance[removed] if similarity else found.distance[removed]
    order = removed[np.lexsort((distance, found.kept_by[removed]))]  # by exemplar, then by distance
    _, starts, sizes = np.unique(found.kept_by[order], return_index=True, return_counts=True)
    near = np.zeros(len(found.kept), dtype=bool)
    near[order[np.arange(len(order)) - np.repeat(starts, sizes) < count]] = True
    return near


def text_order(first: int, count: int) -> NDArray[np.int64]:
    """Indices of slices numbered `first`, `first + 1`, ... in the order of their numbers as text, unpadded.

    The released scripts sort file names this way (1, 10, 100, 101, ..., 11, ...), which decides who survives.
    """
    return np.asarray(sorted(range(count), key=lambda i: str(first + i)), dtype=np.int64)
