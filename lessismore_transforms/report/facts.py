"""What the report shows of each volume, computed from its rows in the manifest and in a selection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.manifest import Manifest, ManifestError, Selection, record_order
from lessismore_transforms.reduction.hashing import hamming_distances
from lessismore_transforms.reduction.selection import exemplars

BITS = 64
RULES = ("exemplars", "pairs")
OUTLIER_Z = 3.5  # Iglewicz and Hoaglin 1993: |0.6745 (x - median) / MAD| > 3.5
VOLUMES_FOR_OUTLIERS = 8
_SMALLEST_MAD = 0.05  # of log shares: where most volumes keep the same share, nothing within a quarter of it is odd


@dataclass(frozen=True, eq=False)
class VolumeFacts:
    """The n slices of a volume and what became of them.

    Args:
        record: the volume's in manifest.json.
        hashes: (n,) 64-bit hashes.
        walk: the readable slices in the order of the exemplar rule.
        reasons: why a slice cannot be read, empty for the others.
        removed_at: (n,) bits at which the pair rule removes a slice, nan where it does not.
        kept: (n,) bool.
        kept_by: (n,) the slice that a removed one was too close to, else -1.
        distance: (n,) bits to that slice, else nan.
        counts: by rule, (65,) numbers of slices kept at 0 to 64 bits.
    """

    record: dict[str, Any]
    hashes: NDArray[np.uint64]
    walk: NDArray[np.int64]
    reasons: list[str]
    removed_at: NDArray[np.float64]
    kept: NDArray[np.bool_]
    kept_by: NDArray[np.int64]
    distance: NDArray[np.float64]
    counts: dict[str, NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def name(self) -> str:
        """The volume's id."""
        return str(self.record["volume"])

    @property
    def kept_count(self) -> int:
        """Number of kept slices."""
        return int(self.kept.sum())

    @property
    def share(self) -> float:
        """Kept share of all its slices."""
        return float(self.kept.mean())

    @property
    def spacing_mm(self) -> float:
        """Distance in mm between neighbouring slices."""
        return float(self.record["spacing_mm"][0])

    def stand_in(self, index: int) -> int:
        """The kept slice that stands for a removed one; by the pair rule its remover may have fallen later."""
        while not self.kept[index]:
            index = int(self.kept_by[index])
        return index


def gather(manifest: Manifest, selection: Selection) -> Iterator[VolumeFacts]:
    """The facts of each volume, in the order of the manifest.

    Raises:
        ManifestError: the selection was not made from this manifest.
    """
    if selection.slices["slice_id"].tolist() != manifest.slices["slice_id"].tolist():
        raise ManifestError("the selection names other slices than manifest.csv: make it again with `select`")
    start = 0
    for record, rows in manifest.by_volume():
        choice = selection.slices.iloc[start : start + len(rows)]
        start += len(rows)
        position = {name: index for index, name in enumerate(rows["slice_id"])}
        hashes, removed_at = rows["hash"].to_numpy(), rows["removed_at"].to_numpy()
        readable = rows["reason"].to_numpy() == ""
        order = record_order(record)
        walk = np.arange(len(rows)) if order is None else order
        walk = walk[readable[walk]]
        yield VolumeFacts(
            record=record,
            hashes=hashes,
            walk=walk,
            reasons=rows["reason"].tolist(),
            removed_at=removed_at,
            kept=choice["kept"].to_numpy(dtype=bool),
            kept_by=np.array([position.get(name, -1) for name in choice["kept_by"]]),
            distance=choice["distance"].to_numpy(dtype=float),
            counts={"exemplars": exemplar_counts(hashes[walk]), "pairs": pair_counts(removed_at[readable])},
        )


def exemplar_counts(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """How many slices of a volume the exemplar rule keeps at each threshold, all thresholds in one walk.

    The thresholds at which a slice is covered by an exemplar before it are the bits of one number.

    Args:
        hashes: (n,) 64-bit hashes in the order of the walk.

    Returns:
        (65,) numbers of exemplars at 0 to 64 bits.
    """
    everything = 2**BITS - 1
    reach = np.array([everything >> bits << bits for bits in range(BITS + 1)], dtype=np.uint64)  # thresholds >= bits
    covered = np.zeros(len(hashes), dtype=np.uint64)
    kept = np.zeros(len(hashes), dtype="<u8")
    for i, value in enumerate(hashes):
        kept[i] = here = ~covered[i]
        if here:
            covered[i:] |= reach[np.bitwise_count(hashes[i:] ^ value)] & here
    flags = np.unpackbits(kept.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")  # (n, 64)
    return np.append(flags.sum(axis=0, dtype=np.int64), min(len(hashes), 1))  # at 64 bits all slices are alike


def pair_counts(removed_at: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many slices of a volume the pair rule keeps at 0 to 64 bits, (65,), from `removed_at` (n,)."""
    removed = np.searchsorted(np.sort(removed_at), np.arange(BITS + 1), side="right")  # nan sorts last
    return len(removed_at) - removed


@dataclass(frozen=True)
class Group:
    """A kept slice, the slices it stands for, and the one of them that differs most, by so many bits."""

    kept: int
    members: list[int]
    farthest: int = -1
    bits: int = 0


def groups(volume: VolumeFacts, most: int) -> list[Group]:
    """The groups of a volume in slice order; where there are more than `most`, some of them, evenly spread."""
    members: dict[int, list[int]] = {int(index): [] for index in np.flatnonzero(volume.kept)}
    for index in np.flatnonzero(volume.kept_by >= 0).tolist():
        members[volume.stand_in(index)].append(index)
    result = []
    for kept in spread(sorted(members), most):
        group = Group(kept, members[kept])
        if group.members:
            bits = np.bitwise_count(volume.hashes[group.members] ^ volume.hashes[kept])
            group = Group(kept, group.members, group.members[int(np.argmax(bits))], int(bits.max()))
        result.append(group)
    return result


def marginal_pairs(volume: VolumeFacts, thresholds: Sequence[int]) -> dict[int, tuple[int, int]]:
    """For each threshold a slice that exemplars keep and one that goes because of it, exactly so many bits away."""
    hashes = volume.hashes[volume.walk]
    pairs = {}
    for bits in thresholds:
        found = exemplars(lambda i: hamming_distances(hashes[i : i + 1], hashes)[0], len(hashes), bits)
        marginal = np.flatnonzero(found.distance == bits)
        if len(marginal):
            removed = marginal[len(marginal) // 2]
            pairs[bits] = (int(volume.walk[found.kept_by[removed]]), int(volume.walk[removed]))
    return pairs


def robust_z(volumes: Sequence[VolumeFacts]) -> NDArray[np.float64]:
    """How far each volume's kept share lies from that of others of its slice spacing, as a robust z-score (V,).

    Of the residuals of log share from a line over log spacing (Theil-Sen: the median slope), because slices far apart
    differ more; logarithms, because 2 to 4 % is as far as 20 to 40 %. 0 where it says nothing: one slice, few volumes.
    """
    telling = np.array([len(volume) > 1 and volume.kept_count > 0 for volume in volumes])
    if telling.sum() < VOLUMES_FOR_OUTLIERS:
        return np.zeros(len(volumes))
    share = np.log([volume.share or 1 for volume in volumes])
    spacing = np.log([max(volume.spacing_mm, 1e-3) for volume in volumes])
    across, up = (np.subtract.outer(values[telling], values[telling]) for values in (spacing, share))
    apart = across > 0.01  # 1 %
    residual = share - spacing * (np.median(up[apart] / across[apart]) if apart.any() else 0.0)
    residual -= np.median(residual[telling])
    mad = max(float(np.median(np.abs(residual[telling]))), _SMALLEST_MAD)
    return np.where(telling, 0.6745 * residual / mad, 0.0)


def spread(items: Sequence[int], most: int) -> list[int]:
    """All items, or `most` of them evenly spread."""
    if len(items) <= most:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]
