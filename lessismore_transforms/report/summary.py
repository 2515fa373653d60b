"""What the report shows of each volume, computed from its rows in the manifest and in a selection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.reduced.manifest import Manifest, candidates, record_order
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduction.hashing import hamming_distances
from lessismore_transforms.reduction.measures import rank_slices
from lessismore_transforms.reduction.selection import Ranking, exemplar_walk, exemplars, target_count
from lessismore_transforms.reduction.target import Target

BITS = 64
RULES = ("exemplars", "pairs")
OUTLIER_Z = 3.5  # Iglewicz and Hoaglin 1993: |0.6745 (x - median) / MAD| > 3.5
VOLUMES_FOR_OUTLIERS = 8
VOLUMES_FOR_SLOPE = 1000  # a median slope of half a million pairs is as good as one of all, which fill the memory
_SHARES = (0.95, 0.85, 0.7, 0.5, 0.3, 0.15, 0.05)  # of removed slices, that are less alike than a level
_SMALLEST_MAD = 0.05  # of log shares: where most volumes keep the same share, nothing within a quarter of it is odd


@dataclass(frozen=True, eq=False)
class VolumeSummary:
    """The n slices of a volume and what became of them.

    Args:
        record: the volume's in manifest.json.
        hashes: (n,) 64-bit hashes.
        walk: the slices that could be kept, in the order of the exemplar rule.
        reasons: why a slice was left out (it cannot be read, it shows no body), empty for the others.
        rankings: by measure, the pair rule's; that of HASH and, where another measure ranked, its own.
        kept: (n,) bool.
        kept_by: (n,) the slice that a removed one was too close to, -1 for others and where it is in another volume;
            of EveryN, which compares nothing, the kept slice before it.
        distance: (n,) to that slice in the unit of the selection's measure, else nan.
        counts: by rule, (65,) numbers of slices that HASH keeps at 0 to 64 bits.
    """

    record: dict[str, Any]
    hashes: NDArray[np.uint64]
    walk: NDArray[np.int64]
    reasons: list[str]
    rankings: dict[str, Ranking]
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
    def bodiless(self) -> list[bool]:
        """Which slices were left out because they show no body."""
        return [shows_no_body(reason) for reason in self.reasons]

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
        for _ in range(len(self)):  # no chain is longer; a damaged selection may go in a circle
            if self.kept[index] or self.kept_by[index] < 0:
                break
            index = int(self.kept_by[index])
        return index


def summarise(manifest: Manifest, selection: Selection) -> Iterator[VolumeSummary]:
    """A summary of each volume, in the order of the manifest, of a selection that fits it (see `read_reduction`)."""
    start = 0
    for record, rows in manifest.by_volume():
        choice = selection.slices.iloc[start : start + len(rows)]
        start += len(rows)
        position = {name: index for index, name in enumerate(rows["slice_id"])}
        hashes, candidate = rows["hash"].to_numpy(), candidates(rows)
        kept, distance = choice["kept"].to_numpy(dtype=bool), choice["distance"].to_numpy(dtype=float)
        kept_by = np.array([position.get(name, -1) for name in choice["kept_by"]], dtype=np.int64)
        if not selection.target.compares and kept.any():
            kept_by, distance = _kept_before(hashes, kept, candidate)
        removed_by = np.array([position.get(name, -1) for name in rows["removed_by"]], dtype=np.int64)
        ranking = Ranking(rows["removed_at"].to_numpy(), removed_by, rows["rank"].to_numpy())
        rankings = {manifest.settings["method"]: ranking}
        if "hash" not in rankings:
            rankings["hash"] = rank_slices("hash", hashes, candidate)
        walk = exemplar_walk(candidate, record_order(record))
        yield VolumeSummary(
            record=record,
            hashes=hashes,
            walk=walk,
            reasons=rows["reason"].tolist(),
            rankings=rankings,
            kept=kept,
            kept_by=kept_by,
            distance=distance,
            counts={
                "exemplars": exemplar_counts(hashes[walk]),
                "pairs": pair_counts(rankings["hash"].removed_at[candidate]),
            },
        )


def _kept_before(
    hashes: NDArray[np.uint64], kept: NDArray[np.bool_], candidate: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each removed slice the last one kept before it, or the first kept at all, and how many bits it is away."""
    before = np.maximum.accumulate(np.where(kept, np.arange(len(kept)), -1))
    before = np.where(candidate & ~kept, np.where(before < 0, int(np.argmax(kept)), before), -1)
    return before, np.where(before < 0, np.nan, np.bitwise_count(hashes ^ hashes[before]))


def shows_no_body(reason: str) -> bool:
    """Whether a slice was left out as empty, by `--body`, and not as unreadable."""
    return reason.startswith("no body")


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


def similarity_counts(volume: VolumeSummary, measure: str, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many slices of a volume the pair rule keeps where those at least so similar go, (T,).

    nan where the ranking stopped before.
    """
    fallen = volume.rankings[measure].removed_at
    fallen = np.sort(fallen[~np.isnan(fallen)])
    kept = (len(volume.walk) - len(fallen) + np.searchsorted(fallen, thresholds, side="left")).astype(float)
    if stopped_at(volume) > 1:
        kept[thresholds <= (fallen[0] if len(fallen) else np.inf)] = np.nan
    return kept


def fraction_counts(volumes: Sequence[VolumeSummary], measure: str, fraction: float) -> tuple[int, list[float]] | None:
    """How many slices a fraction of each volume is, and the least similarity at which one goes, of each that loses any.

    Nothing where a ranking stopped before.
    """
    total, ends = 0, []
    for volume in volumes:
        wanted = target_count(len(volume.walk), fraction) if len(volume.walk) else 0
        if wanted < stopped_at(volume):
            return None
        ranking = volume.rankings[measure]
        fallen = ranking.removed_at[ranking.rank > max(wanted, 1)]
        total += wanted
        ends += [float(fallen.min())] if len(fallen) else []
    return total, ends


def stopped_at(volume: VolumeSummary) -> int:
    """The number of slices that were left when the ranking of the volume stopped early, else 0."""
    return int(volume.record.get("ranked_to", 0))


def levels(volumes: Sequence[VolumeSummary], measure: str) -> list[float]:
    """Some round similarities, from the most to the least alike, between which about as many slices fall."""
    fallen = removed_at(volumes, measure)
    ends = np.quantile(fallen, _SHARES) if len(fallen) else np.array([])
    found: list[float] = []
    for digits in (2, 3, 4):  # embeddings are hardly different
        if len(found) < min(5, len(np.unique(ends))):
            found = sorted({round(value, digits) for value in (np.floor(ends * 10**digits) / 10**digits).tolist()})
    return found[::-1]


def removed_at(volumes: Sequence[VolumeSummary], measure: str) -> NDArray[np.float64]:
    """Where the pair rule removes the slices of all volumes, as far as they were ranked."""
    fallen: NDArray[np.float64] = np.concatenate([volume.rankings[measure].removed_at for volume in volumes])
    return fallen[~np.isnan(fallen)]


@dataclass(frozen=True)
class Group:
    """A kept slice, the slices it stands for, and the one of them that differs most from what stands for it.

    Args:
        kept: the kept slice.
        members: those that it stands for.
        farthest: the one that differs most, -1 where there are none.
        remover: from which it differs: the kept slice or, by a similarity's pair rule, one that fell later.
        distance: between the two, in the unit of the selection's measure.
    """

    kept: int
    members: list[int]
    farthest: int = -1
    remover: int = -1
    distance: float = 0


def groups(volume: VolumeSummary, most: int, target: Target) -> list[Group]:
    """The groups of a volume in slice order; where there are more than `most`, some of them, evenly spread."""
    members: dict[int, list[int]] = {int(index): [] for index in np.flatnonzero(volume.kept)}
    for index in np.flatnonzero(volume.kept_by >= 0).tolist():
        members[volume.stand_in(index)].append(index)
    result = []
    for kept in spread(sorted(members), most):
        group = Group(kept, members[kept])
        if group.members and target.measure == "hash":
            bits = np.bitwise_count(volume.hashes[group.members] ^ volume.hashes[kept])
            group = Group(kept, group.members, group.members[int(np.argmax(bits))], kept, int(bits.max()))
        elif group.members:
            farthest = group.members[int(np.argmin(volume.distance[group.members]))]
            remover, distance = int(volume.kept_by[farthest]), float(volume.distance[farthest])
            group = Group(kept, group.members, farthest, remover, distance)
        result.append(group)
    return result


def marginal_pairs(volume: VolumeSummary, thresholds: Sequence[float]) -> dict[float, tuple[int, int]]:
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


def nearest_pairs(volume: VolumeSummary, measure: str, marks: Sequence[float]) -> dict[float, tuple[int, int]]:
    """For each of some similarities, descending, the slice that falls at it or next above, below the one before.

    With the slice, still there, that it falls to: that one and the removed one.
    """
    ranking = volume.rankings[measure]
    pairs: dict[float, tuple[int, int]] = {}
    for above, mark in zip([np.inf, *marks], marks, strict=False):
        found = np.flatnonzero((ranking.removed_at >= mark) & (ranking.removed_at < above))
        if len(found):
            removed = int(found[np.argmin(ranking.removed_at[found])])
            pairs[mark] = (int(ranking.removed_by[removed]), removed)
    return pairs


def robust_z(volumes: Sequence[VolumeSummary]) -> NDArray[np.float64]:
    """How far each volume's kept share lies from that of others of its slice spacing, as a robust z-score (V,).

    Of the residuals of log share from a line over log spacing (Theil-Sen: the median slope), because slices far apart
    differ more; logarithms, because 2 to 4 % is as far as 20 to 40 %. 0 where it says nothing: one slice, few volumes.
    The slope of many volumes is that of `VOLUMES_FOR_SLOPE` of them, evenly spread.
    """
    telling = np.array([len(volume) > 1 and volume.kept_count > 0 for volume in volumes])
    if telling.sum() < VOLUMES_FOR_OUTLIERS:
        return np.zeros(len(volumes))
    share = np.log([volume.share or 1 for volume in volumes])
    spacing = np.log([max(volume.spacing_mm, 1e-3) for volume in volumes])
    some = spread(np.flatnonzero(telling).tolist(), VOLUMES_FOR_SLOPE)
    across, up = (np.subtract.outer(values[some], values[some]) for values in (spacing, share))
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
