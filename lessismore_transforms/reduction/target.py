"""What to keep of a volume: a rule with a threshold or a fraction, and its application to a ranking.

Two rules, both removing at distance `<= threshold` (METHODS of the paper, Section 2.1, and its released scripts):

- `pairs`, the paper's text: walk down the pairs from most to least similar and remove the later slice of each.
  Nested, so every threshold and every fraction is a filter over one ranking.
- `exemplars`, the released scripts: walk through the slices in order and keep a slice unless one that was kept
  before is within the threshold. Not nested; needs the features again, which for HASH are in the manifest.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.reduction.hashing import hamming_distances
from lessismore_transforms.reduction.selection import Ranking, exemplars, removal_order, target_count

METHODS = ("hash",)
RULES = ("exemplars", "pairs")
DEFAULT_THRESHOLD = 6.0  # bits of 64; the paper's best (Tables 5 and 6)


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
    """A rule with its threshold or fraction; `Target.of` checks them and fills in the defaults.

    Args:
        method: the measure of redundancy.
        rule: `exemplars` or `pairs`.
        threshold: distance at which a slice is still redundant; HASH: whole bits, 0 to 64.
        fraction: share of a volume's slices to keep, in (0, 1].
    """

    method: str
    rule: str
    threshold: float | None
    fraction: float | None

    @classmethod
    def of(
        cls,
        *,
        method: str = "hash",
        rule: str | None = None,
        threshold: float | None = None,
        fraction: float | None = None,
    ) -> Target:
        """A checked target: by default HASH at 6 bits; exemplars for a threshold, pairs for a fraction.

        Raises:
            ValueError: an unknown method or rule, a value out of range, two values that exclude each other.
        """
        if method not in METHODS:
            raise ValueError(f"expected a method out of {', '.join(METHODS)}, found {method!r}")
        if rule is not None and rule not in RULES:
            raise ValueError(f"expected a rule out of {', '.join(RULES)}, found {rule!r}")
        if threshold is not None and fraction is not None:
            raise ValueError(
                f"expected a threshold or a fraction, found both ({threshold:g} and {fraction:g}): drop one"
            )
        if fraction is not None:
            if not 0 < fraction <= 1:
                raise ValueError(f"expected a fraction above 0 and up to 1, found {fraction:g}")
            if rule == "exemplars":
                raise ValueError("the exemplar rule cannot hit a fraction: give a threshold, or the rule pairs")
            return cls(method, "pairs", None, float(fraction))
        threshold = DEFAULT_THRESHOLD if threshold is None else float(threshold)
        if not (0 <= threshold <= 64 and threshold.is_integer()):
            raise ValueError(f"expected a HASH threshold of 0 to 64 whole bits, found {threshold:g}")
        return cls(method, rule or "exemplars", threshold, None)

    def as_dict(self) -> dict[str, Any]:
        """The target as JSON holds it."""
        return asdict(self)

    def __str__(self) -> str:
        """For people: `HASH at 6 bits, exemplars`."""
        amount = f"at {self.threshold:g} bits" if self.fraction is None else f"to {self.fraction:.4g} of each volume"
        return f"{self.method.upper()} {amount}, rule {self.rule}"


def rank_hashes(hashes: NDArray[np.uint64], candidate: NDArray[np.bool_]) -> Ranking:
    """The pair rule's ranking of a volume's slices by Hamming distance.

    Args:
        hashes: (n,) 64-bit hashes.
        candidate: (n,) slices that take part; the others get removed_at nan, removed_by -1 and rank 0.
    """
    taking_part = np.flatnonzero(candidate)
    ranking = removal_order(hamming_distances(hashes[taking_part], hashes[taking_part]))
    removed_at, removed_by = np.full(len(hashes), np.nan), np.full(len(hashes), -1)
    rank = np.zeros(len(hashes), dtype=np.int64)
    removed_at[taking_part] = ranking.removed_at
    removed_by[taking_part] = np.where(ranking.removed_by < 0, -1, taking_part[ranking.removed_by])
    rank[taking_part] = ranking.rank
    return Ranking(removed_at, removed_by, rank)


def choose(
    target: Target,
    hashes: NDArray[np.uint64],
    ranking: Ranking,
    candidate: NDArray[np.bool_],
    order: NDArray[np.int64] | None = None,
) -> Kept:
    """The slices of one volume that `target` keeps.

    Args:
        target: rule and threshold or fraction.
        hashes: (n,) 64-bit hashes.
        ranking: the pair rule's, as `rank_hashes` gives it.
        candidate: (n,) slices that can be kept.
        order: (n,) in which the exemplar rule walks through the slices; by default that of the indices.
    """
    if target.rule == "exemplars":
        assert target.threshold is not None
        walk = np.arange(len(hashes)) if order is None else order
        walk = walk[candidate[walk]]
        chosen = hashes[walk]
        result = exemplars(lambda i: hamming_distances(chosen[i : i + 1], chosen)[0], len(walk), target.threshold)
        kept = np.zeros(len(hashes), dtype=bool)
        kept_by, distance = np.full(len(hashes), -1), np.full(len(hashes), np.nan)
        kept[walk] = result.kept
        kept_by[walk] = np.where(result.kept, -1, walk[result.kept_by])
        distance[walk] = np.where(result.kept, np.nan, result.distance)
        return Kept(kept, kept_by, distance)
    if target.fraction is not None:
        count = int(candidate.sum())
        kept = candidate & (ranking.rank <= (target_count(count, target.fraction) if count else 0))
    else:
        assert target.threshold is not None
        kept = candidate & ~(ranking.removed_at <= target.threshold)
    return Kept(kept, np.where(kept, -1, ranking.removed_by), np.where(kept, np.nan, ranking.removed_at))


def text_order(first: int, count: int) -> NDArray[np.int64]:
    """Indices of slices numbered `first`, `first + 1`, ... in the order of their numbers as text, unpadded.

    The released scripts sort file names this way (1, 10, 100, 101, ..., 11, ...), which decides who survives.
    """
    return np.asarray(sorted(range(count), key=lambda i: str(first + i)), dtype=np.int64)
