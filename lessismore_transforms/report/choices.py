"""What a reader of the report may choose: for each rule, what each threshold or fraction keeps of a data set.

Everything is counted by the code that `select` uses; the page's script looks it up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduction.hashing import hamming_distances
from lessismore_transforms.reduction.measures import MEASURES
from lessismore_transforms.reduction.selection import target_count
from lessismore_transforms.reduction.target import Target, choose
from lessismore_transforms.report.summary import (
    BITS,
    RULES,
    VolumeSummary,
    fraction_counts,
    levels,
    removed_at,
    similarity_counts,
)

FRACTIONS = (0.5, 0.2, 0.1)  # of which tables tell
_PERCENTS = (*range(100, 50, -5), *range(50, 20, -2), *range(20, 0, -1), 0.5)
_MOST_LEVELS, _ENOUGH_LEVELS = 61, 30  # of a similarity


@dataclass(frozen=True)
class Scale:
    """The choices of one kind, from more slices to fewer.

    Args:
        name: of the scale.
        words: what a reader sees.
        targets: the choices.
        kept: how many slices of the data set each of them keeps.
        nested: each keeps some of the slices of the one before.
    """

    name: str
    words: str
    targets: list[Target]
    kept: list[int]
    nested: bool = True

    @cached_property
    def measure(self) -> str:
        """The measure that compares slices."""
        return self.targets[0].measure


def scales(manifest: Manifest, volumes: Sequence[VolumeSummary], target: Target) -> list[Scale]:
    """The scales of the measure that ranked, as far as it ranked, then those of HASH; the target is on one it fits."""
    measure = manifest.settings["method"]
    found, before = [], ""
    if measure != "hash":
        title = MEASURES[measure].title
        found = [_thresholds(volumes, measure, target), _shares(volumes, measure, target, f"{title}, a fraction")]
        before = "HASH, "
    for rule in RULES:
        kept = np.sum([volume.counts[rule] for volume in volumes], axis=0).tolist()
        targets = [Target.of(rule=rule, threshold=bits) for bits in range(BITS + 1)]
        found.append(Scale(rule, f"{before}rule {rule}", targets, kept, nested=rule == "pairs"))
    found.append(_shares(volumes, "hash", target, f"{before}a fraction"))
    return [scale for scale in found if scale.targets]


def scale_with(found: Sequence[Scale], target: Target) -> Scale | None:
    """The scale that the target is on, if any is."""
    return next((scale for scale in found if target in scale.targets), None)


def _shares(volumes: Sequence[VolumeSummary], measure: str, target: Target, words: str) -> Scale:
    fractions = {percent / 100 for percent in _PERCENTS}
    if target.method == measure and target.fraction is not None:
        fractions.add(target.fraction)
    targets, kept = [], []
    for fraction in sorted(fractions, reverse=True):
        if measure == "hash":  # always ranked to the end
            total = sum(target_count(len(volume.walk), fraction) for volume in volumes if len(volume.walk))
        elif (counted := fraction_counts(volumes, measure, fraction)) is not None:
            total = counted[0]
        else:
            continue
        targets.append(Target.of(method=measure, fraction=fraction))
        kept.append(total)
    return Scale("share" if measure == "hash" else f"{measure}_share", words, targets, kept)


def _thresholds(volumes: Sequence[VolumeSummary], measure: str, target: Target) -> Scale:
    """Round thresholds of a similarity between which about as many slices fall."""
    fallen = removed_at(volumes, measure)
    ends = np.quantile(fallen, np.linspace(0, 1, _MOST_LEVELS)) if len(fallen) else np.array([])
    found: set[float] = set()
    for digits in (2, 3, 4):
        if len(found) < min(_ENOUGH_LEVELS, len(np.unique(ends))):
            found = {round(value, digits) for value in (np.floor(ends * 10**digits) / 10**digits).tolist()}
    chosen = target.threshold if target.method == measure else None
    found |= {*levels(volumes, measure), *([] if chosen is None else [chosen])}
    thresholds = np.array(sorted(found, reverse=True), dtype=float)
    totals = np.sum([similarity_counts(volume, measure, thresholds) for volume in volumes], axis=0)
    ranked = ~np.isnan(totals)
    targets = [Target.of(method=measure, threshold=value) for value in thresholds[ranked].tolist()]
    return Scale(measure, f"{MEASURES[measure].title}, rule pairs", targets, totals[ranked].astype(int).tolist())


def kept_masks(volume: VolumeSummary, scale: Scale) -> NDArray[np.bool_]:
    """Which slices of a volume each choice of a scale keeps, (choices, n)."""
    candidate = np.zeros(len(volume), dtype=bool)
    candidate[volume.walk] = True
    hashes = volume.hashes
    chosen = [
        choose(
            target,
            volume.rankings[scale.measure],
            candidate,
            positions_mm=np.zeros(len(volume)),  # only EveryN asks for them
            distances_from=lambda index: hamming_distances(hashes[index : index + 1], hashes)[0],
            order=np.concatenate([volume.walk, np.flatnonzero(~candidate)]),
        )
        for target in scale.targets
    ]
    return np.stack([choice.kept for choice in chosen])


def kept_by_choice(volume: VolumeSummary, scale: Scale) -> list[Any]:
    """The same as numbers: of a nested scale how many choices keep each slice, else each choice's kept slices."""
    masks = kept_masks(volume, scale)
    if scale.nested:
        return [int(stays) for stays in masks.sum(axis=0)]
    return [np.flatnonzero(mask).tolist() for mask in masks]
