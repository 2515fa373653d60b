"""Random epochs in which near slices of a volume are kept out of each other's batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lessismore_transforms.reduction.compiled import compiled
from lessismore_transforms.reduction.hashing import Hashes
from lessismore_transforms.reduction.neighbours import neighbours_within

Indices = npt.NDArray[np.int64]

_UM_PER_MM = 1000  # the manifest's positions have three digits; whole numbers compare exactly
_TRIES = 64  # places that a slice is tried in, each time
_EFFORT = 200  # looks at the neighbours of a slice, per slice, before the search for swaps ends
_PLACES = 2**16  # that are drawn for an epoch, to be used again and again


class Spread:
    """The order of epochs of all slices in which near ones are not in one batch, as far as possible.

    A random permutation, in which slices that share a batch with a near one are swapped with slices of other batches,
    as long as that leaves fewer near pairs. Slices behind the last batch stay there: they are left out of the epoch by
    chance, and not because they are near many others.

    Args:
        pairs: int64 (p, 2), the near pairs of slices, each once; see `near_in_mm` and `near_in_bits`.
        slices: number of slices.
        batch_size: of all processes together.
        batches: number of batches of an epoch.
        seed: of the permutations; that of `RandomOrder` is where each epoch begins.

    Attributes:
        draws: number of slices.
    """

    def __init__(self, pairs: Indices, slices: int, batch_size: int, batches: int, seed: int = 0) -> None:
        self.pairs, self.draws, self.seed = pairs, slices, seed
        self.batch_size, self.batches = batch_size, batches
        both = np.concatenate([pairs, pairs[:, ::-1]])
        self._others = both[np.argsort(both[:, 0], kind="stable"), 1]
        self._starts = np.searchsorted(np.sort(both[:, 0]), np.arange(slices + 1))

    def draw(self, epoch: int) -> Indices:
        """The permutation (draws,) of an epoch."""
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(self.draws)
        batched = order[: self.batches * self.batch_size]  # a view
        places = random.integers(len(batched), size=_PLACES)
        _part(batched, self._batches_of(order), self._starts, self._others, places)
        return order

    def count_near(self, order: Indices) -> int:
        """The number of near pairs within the batches of an order."""
        first, second = self._batches_of(order)[self.pairs].T
        return int(((first == second) & (first >= 0)).sum())

    def _batches_of(self, order: Indices) -> Indices:
        """The batch (n,) of each slice, -1 for those that are left out."""
        batch = np.full(self.draws, -1, np.int64)
        batched = order[: self.batches * self.batch_size]
        batch[batched] = np.arange(len(batched)) // self.batch_size
        return batch


def near_in_mm(volumes: Indices, positions_mm: npt.NDArray[np.float64], distance_mm: float) -> Indices:
    """The pairs of slices of one volume that are at most so far apart along the slice axis.

    Args:
        volumes: int64 (n,), numbers from 0.
        positions_mm: (n,), to a thousandth as the manifest holds them.
        distance_mm: a distance <= this counts.

    Returns:
        int64 (p, 2), each pair once.
    """
    if not len(volumes):
        return np.empty((0, 2), np.int64)
    places = np.rint((positions_mm - positions_mm.min()) * _UM_PER_MM).astype(np.int64)
    span = int(places.max()) + 1
    reach = min(int(distance_mm * _UM_PER_MM + 0.5), span)
    lines = volumes * (span + reach) + places  # one axis on which volumes lie beyond each other's reach
    order = np.argsort(lines, kind="stable")
    lines = lines[order]
    counts = np.searchsorted(lines, lines + reach, side="right") - np.arange(len(lines)) - 1  # behind each slice
    first = np.repeat(np.arange(len(lines)), counts)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([order[first], order[second]], axis=1)


def near_in_bits(volumes: Indices, hashes: Hashes, bits: int) -> Indices:
    """The pairs of slices of one volume whose difference hashes (n,) differ in at most so many bits.

    Args:
        volumes: int64 (n,), numbers from 0.
        hashes: uint64 (n,).
        bits: a distance <= this counts.

    Returns:
        int64 (p, 2), each pair once.
    """
    order = np.argsort(volumes, kind="stable")
    found = [np.empty((0, 2), np.int64)]
    for members in np.split(order, np.flatnonzero(np.diff(volumes[order])) + 1):
        first, second, _ = neighbours_within(hashes[members], hashes[members], bits)
        once = first < second
        found.append(np.stack([members[first[once]], members[second[once]]], axis=1))
    return np.concatenate(found)


@compiled()
def _part(order: Any, batch: Any, starts: Any, others: Any, places: Any) -> None:
    """Swap slices of an order between batches until no near ones share one, or until that helps no more.

    A swap never makes more near pairs. One that makes as many is taken where none of those tried makes fewer: it leads
    out of an order in which no single swap helps.
    """
    turn, looks, total = 0, 0, 1
    while total > 0 and looks < _EFFORT * len(order):
        total = 0
        looks += len(order)
        for place in range(len(order)):
            one = order[place]
            here = _near(one, batch[one], -1, batch, starts, others)
            if here == 0:
                continue
            total += here
            chosen = -1
            for _ in range(_TRIES):
                tried = places[turn % len(places)]
                turn += 1
                looks += 3
                other = order[tried]
                if batch[other] == batch[one]:
                    continue
                before = here + _near(other, batch[other], -1, batch, starts, others)
                after = _near(one, batch[other], other, batch, starts, others)
                after += _near(other, batch[one], one, batch, starts, others)
                if after < before:
                    chosen = tried
                    break
                if after == before and chosen < 0:
                    chosen = tried
            if chosen >= 0:
                other = order[chosen]
                order[place], order[chosen] = other, one
                batch[one], batch[other] = batch[other], batch[one]


@compiled()
def _near(one: int, of_batch: int, without: int, batch: Any, starts: Any, others: Any) -> int:
    """The number of slices near to one in a batch, without a certain one."""
    found = 0
    for index in range(starts[one], starts[one + 1]):
        other = others[index]
        found += batch[other] == of_batch and other != without
    return found
