"""How many kept slices selections of the same data set share, beside what chance and order alone would give.

Two selections that keep a tenth each share a tenth of their slices by chance, and which of two near copies a method
keeps hangs on the order it walks in. An overlap says something only beside both (Wolf et al. 2024, doi
10.1016/j.compbiomed.2024.109242, Section 3.2 and Figure 6).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.atomic import atomic_write
from lessismore_transforms.errors import ManifestError, UserError
from lessismore_transforms.reduced.manifest import Manifest, candidates, record_order
from lessismore_transforms.reduction.hashing import hamming_distances
from lessismore_transforms.reduction.measures import MEASURES
from lessismore_transforms.reduction.selection import (
    exemplar_walk,
    exemplars,
    keep_at_threshold,
    keep_count,
    removal_order,
    target_count,
)
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.wording import counted

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]

COLUMNS = (
    "selection", "other", "kept", "kept_other", "shared", "share", "random_share", "random_low", "random_high",
    "reversed", "reversed_other",
)  # fmt: skip
_SURE = 0.95  # of the interval around chance
_NEGLIGIBLE = 1e-15  # probability


@dataclass(frozen=True)
class Overlap:
    """The slices that two selections share, and how many random ones of the same numbers per volume would.

    Args:
        kept: numbers of slices that the two keep.
        shared: number that both keep.
        expected: mean of the random number.
        low: 2.5 % quantile of the random number.
        high: 97.5 % quantile.
    """

    kept: tuple[int, int]
    shared: int
    expected: float
    low: int
    high: int

    @property
    def share(self) -> float:
        """Shared slices, as a share of the smaller selection; for equal numbers that of either."""
        return self.of_smaller(self.shared)

    def of_smaller(self, number: float) -> float:
        """A number of slices as a share of the smaller selection, nan where that is empty."""
        return number / min(self.kept) if min(self.kept) else math.nan


@dataclass(frozen=True, eq=False)
class Choice:
    """One selection of the n slices of a data set.

    Args:
        label: what the tables call it.
        output_dir: the output folder it stands in.
        target: method, rule and amount.
        kept: (n,) bool.
        reversed: its overlap with what its method keeps in reversed order; None where the output does not tell: for
            EveryN and ALL, and for other measures than HASH unless the run kept the distances.
    """

    label: str
    output_dir: Path
    target: Target
    kept: Mask
    reversed: Overlap | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Selections of the same slices and what they share.

    Args:
        volumes: the volumes' records in manifest.json, in the order of the slices.
        choices: the selections.
        overlaps: by indices (i, j), i < j, of two selections.
        as_released: the slices run as they were stored, not in canonical order.
    """

    volumes: list[dict[str, Any]]
    choices: list[Choice]
    overlaps: dict[tuple[int, int], Overlap]
    as_released: bool

    def overlap(self, i: int, j: int) -> Overlap | None:
        """That of two selections, or of one with itself in reversed order."""
        return self.choices[i].reversed if i == j else self.overlaps[min(i, j), max(i, j)]


def named_outputs(texts: Sequence[str], selections: Sequence[str]) -> list[tuple[Path, str]]:
    """Output folders and selections as the command line names them: OUT:NAME, or OUT for each of `selections`."""
    outputs: list[tuple[Path, str]] = []
    for text in texts:
        folder, colon, name = text.rpartition(":")
        alone = not colon or Path(text).is_dir() or "/" in name or "\\" in name
        outputs += [(Path(text), selection) for selection in selections] if alone else [(Path(folder), name)]
    return outputs


def compare(outputs: Sequence[tuple[Path, str]]) -> Comparison:
    """The overlaps of selections of the same data set.

    Args:
        outputs: an output folder of `reduce` and the name of a selection in it, two or more.

    Raises:
        UserError: fewer than two selections, or one of them twice.
        ManifestError: a folder or a selection that is none, or outputs that describe different slices.
    """
    if len(outputs) < 2:
        raise UserError(
            f"expected two selections or more to compare, found {len(outputs)}: name others by --selections"
        )
    for i, (folder, name) in enumerate(outputs):
        if (folder, name) in outputs[:i]:
            raise UserError(f"the selection {name} of {folder} is named twice: drop one")
    choices: list[Choice] = []
    masks: list[Mask] = []
    first: Manifest | None = None
    labels = iter(_labels(outputs))
    for folder, group in groupby(outputs, key=lambda output: output[0]):
        manifest = Manifest.read(folder)
        if first is None:
            first = manifest
        elif difference := _difference(first, manifest, outputs[0][0], folder):
            raise ManifestError(f"{difference}: compare outputs of the same data set")
        candidate = candidates(manifest.slices)
        for _, name in group:
            selection = manifest.read_selection(name)
            kept = selection.slices["kept"].to_numpy(dtype=bool)
            backwards = _reversed(manifest, selection.target)
            own = None if backwards is None else _overlap(kept, backwards, candidate, manifest.volumes)
            choices.append(Choice(next(labels), folder, selection.target, kept, own))
            masks.append(candidate)
    assert first is not None
    overlaps = {
        (i, j): _overlap(choices[i].kept, choices[j].kept, masks[i] & masks[j], first.volumes)
        for i, j in combinations(range(len(choices)), 2)
    }
    return Comparison(first.volumes, choices, overlaps, bool(first.settings.get("as_released")))


def write_overlaps(comparison: Comparison, path: Path) -> None:
    """Write the overlaps as CSV, a row for each pair of selections.

    Raises:
        OutputError: the file cannot be written.
    """
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_rows(comparison))


def _labels(outputs: Sequence[tuple[Path, str]]) -> list[str]:
    """As short as tells them apart: the selection's name, its folder's, or both, numbered where all that is equal."""
    folders, names = {folder for folder, _ in outputs}, {name for _, name in outputs}
    labels: list[str] = []
    for folder, name in outputs:
        place = folder.resolve().name
        label = name if len(folders) == 1 else place if len(names) == 1 else f"{place}:{name}"
        again = sum(before.partition(" (")[0] == label for before in labels)
        labels.append(f"{label} ({again + 1})" if again else label)
    return labels


def _difference(one: Manifest, other: Manifest, folder: Path, other_folder: Path) -> str:
    """The first thing by which two outputs describe different slices, or nothing."""
    order, other_order = (bool(manifest.settings.get("as_released")) for manifest in (one, other))
    if order != other_order:
        released, canonical = (folder, other_folder) if order else (other_folder, folder)
        return f"{released} holds slices as released, {canonical} in canonical order"
    records = {record["volume"]: record for record in one.volumes}
    others = {record["volume"]: record for record in other.volumes}
    for volume in records | others:
        for missing, present, where in ((records, other_folder, folder), (others, folder, other_folder)):
            if volume not in missing:
                return f"volume {volume} is in {present} but not in {where}"
        here, there = records[volume], others[volume]
        if here["slices"] != there["slices"]:
            slices = counted(here["slices"], "slice")
            return f"volume {volume} has {slices} in {folder} and {there['slices']:,} in {other_folder}"
        if here["crc32"] != there["crc32"]:
            return f"volume {volume} has {here['crc32']} as CRC32 in {folder} and {there['crc32']} in {other_folder}"
    if list(records) != list(others):
        return f"{folder} and {other_folder} hold the same volumes in another order"
    return ""


def _reversed(manifest: Manifest, target: Target) -> Mask | None:
    """The slices (n,) that the same method keeps in reversed order; None where the output does not tell."""
    if target.method not in MEASURES or target.scope != "volume":
        return None
    parts = []
    for record, rows in manifest.by_volume():
        candidate = candidates(rows)
        if target.method == "hash":
            hashes = rows["hash"].to_numpy()[candidate]
            matrix = hamming_distances(hashes, hashes)
        elif (distances := manifest.kept_distances(record["volume"])) is not None:
            matrix = distances
        else:
            return None
        order = record_order(record) if target.rule == "exemplars" else None
        walk = exemplar_walk(candidate, order)[::-1]
        place = (np.cumsum(candidate) - 1)[walk]
        kept = np.zeros(len(rows), dtype=bool)
        kept[walk] = _keep(matrix[np.ix_(place, place)], target)
        parts.append(kept)
    return np.concatenate(parts) if parts else np.zeros(0, dtype=bool)


def _keep(matrix: NDArray[Any], target: Target) -> Mask:
    """The slices (n,) of a volume that a target keeps, walking in the order of the matrix (n, n)."""
    similarity = MEASURES[target.method].similarity
    if target.rule == "exemplars":
        assert target.threshold is not None
        return exemplars(lambda i: matrix[i], len(matrix), target.threshold, similarity=similarity).kept
    ranking = removal_order(matrix, similarity=similarity)
    if target.fraction is not None:
        return keep_count(ranking, target_count(len(matrix), target.fraction))
    assert target.threshold is not None
    return keep_at_threshold(ranking, target.threshold, similarity=similarity)


def _overlap(kept: Mask, other: Mask, candidates: Mask, volumes: Sequence[dict[str, Any]]) -> Overlap:
    """What two selections (n,) share; chance draws from the candidates (n,), those that both could keep."""
    sizes = [record["slices"] for record in volumes]
    starts = np.cumsum([0, *sizes])[:-1]
    numbers = (np.add.reduceat(mask & candidates, starts, dtype=np.int64) for mask in (kept, other, candidates))
    return Overlap((int(kept.sum()), int(other.sum())), int((kept & other).sum()), *chance(*numbers))


def chance(kept: Counts, other: Counts, slices: Counts) -> tuple[float, int, int]:
    """How many slices two random selections share: the mean and the ends of the middle 95 %.

    The number shared in a volume is hypergeometric; that in all of them is distributed as the convolution of these.

    Args:
        kept: (V,) numbers that one keeps of each volume.
        other: (V,) numbers that the other keeps.
        slices: (V,) numbers of the volumes' slices.
    """
    log_factorials = np.append(0.0, np.cumsum(np.log(np.arange(1, 1 + slices.max(initial=0)))))
    mean, first, chances = 0.0, 0, np.ones(1)
    for a, b, n in zip(kept.tolist(), other.tolist(), slices.tolist(), strict=True):
        if a and b:
            mean += a * b / n
            shared = np.arange(max(0, a + b - n), min(a, b) + 1)
            ways = sum(
                log_factorials[whole] - log_factorials[part] - log_factorials[whole - part]
                for whole, part in ((a, shared), (n - a, b - shared))
            )
            chances = np.convolve(chances, np.exp(ways - ways.max()))
            likely = np.flatnonzero(chances > _NEGLIGIBLE * chances.max())
            first += int(shared[0] + likely[0])
            chances = chances[likely[0] : likely[-1] + 1] / chances.sum()
    low, high = np.searchsorted(np.cumsum(chances), ((1 - _SURE) / 2, (1 + _SURE) / 2)) + first
    return mean, int(low), int(high)


def _rows(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    choices = comparison.choices
    for (i, j), overlap in comparison.overlaps.items():
        shares = [overlap.of_smaller(number) for number in (overlap.expected, overlap.low, overlap.high)]
        shares += [choice.reversed.share if choice.reversed else math.nan for choice in (choices[i], choices[j])]
        numbers = (*overlap.kept, overlap.shared, overlap.share, *shares)
        yield choices[i].label, choices[j].label, *("" if math.isnan(n) else f"{n:.6g}" for n in numbers)
