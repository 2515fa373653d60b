"""Which slices each slice is compared with: neighbours by distance, by bits of the hash, and one of another patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.reduction.hashing import hamming_distances

if TYPE_CHECKING:
    import pandas as pd

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NEXT, OTHER = "next slice", "another patient"
TOLERANCE = 0.25  # of a distance in mm: spacings of 0.8, 1 and 1.25 mm have a neighbour at 1 mm, one of 1.5 mm has none
_ROUNDED = 3  # decimals of mm: smaller differences of positions are rounding


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The slices that each of n slices is compared with.

    Args:
        kinds: K names: `next slice`, `1 mm`, ..., `0 bits`, ..., `another patient`.
        index: int64 (n, K), the other slice; -1 where there is none of that kind.
        mm: (n, K), how far away it is; nan where there is none, or it is of another volume.
        bits: int64 (n, K), between their hashes; -1 where there is none.
    """

    kinds: tuple[str, ...]
    index: Ints
    mm: Floats
    bits: Ints

    def pairs(self) -> Ints:
        """All pairs of a slice and one of its neighbours, (P, 2), each once, sorted."""
        rows, columns = np.nonzero(self.index >= 0)
        return np.unique(np.stack([rows, self.index[rows, columns]], axis=1), axis=0)


def at_mm(mm: float) -> str:
    """The name of the neighbour at a distance."""
    return f"{mm:g} mm"


def at_bits(bits: int) -> str:
    """The name of the neighbour at so many bits."""
    return f"{bits} {'bit' if bits == 1 else 'bits'}"


def find_neighbours(slices: pd.DataFrame, distances_mm: tuple[float, ...], bits: int, *, seed: int) -> Neighbours:
    """The neighbours of each slice.

    - `next slice`: the one of the volume that is nearest in mm.
    - `D mm`: the one of the volume whose distance is nearest to D, if it is within a quarter of D.
    - `K bits`: one drawn at random of those of the volume whose hashes differ in exactly K bits.
    - `another patient`: one drawn at random of the slices of all other patients.

    Of two at one distance the one towards the feet is taken, which comes first.

    Args:
        slices: n rows with volume, patient, position_mm and hash.
        distances_mm: D of each neighbour by distance.
        bits: the largest K.
        seed: of the draws.
    """
    from pandas import factorize

    hashes = slices["hash"].to_numpy(dtype=np.uint64)
    positions = slices["position_mm"].to_numpy(dtype=np.float64)
    kinds = (NEXT, *map(at_mm, distances_mm), *map(at_bits, range(bits + 1)), OTHER)
    index = np.full((len(slices), len(kinds)), -1, np.int64)
    rng = np.random.default_rng(seed)
    for rows in slices.groupby("volume", sort=False).indices.values():
        index[rows, :-1] = _within(hashes[rows], positions[rows], distances_mm, bits, rng, rows)
    index[:, -1] = _of_others(factorize(slices["patient"])[0], rng)  # by first appearance: names hang on a key
    there = index >= 0
    other = np.where(there, index, 0)
    apart = np.abs(positions[:, None] - positions[other])
    apart[~there] = np.nan
    apart[:, -1] = np.nan
    differing = np.bitwise_count(hashes[:, None] ^ hashes[other]).astype(np.int64)
    return Neighbours(kinds, index, apart, np.where(there, differing, -1))


def _within(
    hashes: NDArray[np.uint64],
    positions: Floats,
    distances_mm: tuple[float, ...],
    bits: int,
    rng: np.random.Generator,
    rows: Ints,
) -> Ints:
    """The neighbours within a volume of m slices, (m, K - 1), as rows of the table."""
    m = len(rows)
    found = np.full((m, 2 + len(distances_mm) + bits), -1, np.int64)
    if m < 2:
        return found
    own = np.eye(m, dtype=bool)
    apart = np.round(np.abs(positions[:, None] - positions), _ROUNDED)  # (m, m)
    apart[own] = np.inf
    found[:, 0] = rows[apart.argmin(axis=1)]
    for column, mm in enumerate(distances_mm, start=1):
        miss = np.round(np.abs(apart - mm), _ROUNDED)
        nearest = miss.argmin(axis=1)
        fits = miss[np.arange(m), nearest] <= TOLERANCE * mm
        found[fits, column] = rows[nearest[fits]]
    differing = hamming_distances(hashes, hashes).astype(np.int64)
    differing[own] = -1
    lots = rng.random((m, m))  # the largest lot of those at K bits is drawn
    for column, wanted in enumerate(range(bits + 1), start=1 + len(distances_mm)):
        lot = np.where(differing == wanted, lots, -1)
        drawn = lot.argmax(axis=1)
        fits = lot[np.arange(m), drawn] >= 0
        found[fits, column] = rows[drawn[fits]]
    return found


def _of_others(member: Ints, rng: np.random.Generator) -> Ints:
    """One slice of another patient for each (n,), each of these equally likely; -1 where there is one patient.

    Args:
        member: number of the patient of each slice, 0, 1, ...
        rng: of the draw.
    """
    order = np.argsort(member, kind="stable")
    counts = np.bincount(member)
    starts = np.cumsum(counts) - counts
    others = len(member) - counts[member]
    lot = np.floor(rng.random(len(member)) * others).astype(np.int64)  # of the slices of others, in `order`
    place = np.where(lot < starts[member], lot, lot + counts[member])
    return np.where(others > 0, order[np.minimum(place, len(order) - 1)], -1)
