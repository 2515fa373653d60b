"""Every volume equally often, whatever number of its slices a selection keeps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lessismore_transforms.errors import UserError
from lessismore_transforms.options import is_number
from lessismore_transforms.wording import counted

Indices = npt.NDArray[np.int64]


class Balanced:
    """The order of epochs that take from the volumes in turn.

    An epoch draws an order of its V volumes, in which they take turns. By default draw number t is of volume t mod V.
    With k volumes per batch, a batch takes its slices of the next k volumes, in turn as well: as many of each volume
    in all, but more slices of one volume meet in a batch, near copies among them.

    Within an epoch the slices of a volume come in a random order, all of them before one comes again, and no batch
    holds one twice: in a contrastive loss it would be a negative of itself. Of a cluster of near copies each draw takes
    a member at random; without clusters each slice is one of its own.

    Args:
        volumes: int64 (n,), the number of each slice's volume.
        clusters: int64 (n,), the number of each slice's cluster, from 0 without gaps; none has slices of two volumes.
        batch_size: of all processes together.
        seed: of all draws.
        volumes_per_batch: k; none for all.

    Attributes:
        draws: number of clusters.

    Raises:
        UserError: a volume has fewer clusters than a batch takes of it, there are fewer volumes than k, or k does not
            divide the batch.
    """

    def __init__(
        self, volumes: Indices, clusters: Indices, batch_size: int, seed: int = 0, volumes_per_batch: int | None = None
    ) -> None:
        self.seed = seed
        self._members = np.argsort(clusters, kind="stable")  # by cluster
        self._sizes = np.bincount(clusters)
        self._starts = np.cumsum(self._sizes) - self._sizes
        of_cluster = volumes[self._members[self._starts]]
        self._clusters = [np.flatnonzero(of_cluster == volume) for volume in np.unique(of_cluster)]
        self.draws = len(self._sizes)
        self._turns = _turns(self.draws, len(self._clusters), batch_size, volumes_per_batch)
        together = len(self._clusters) if volumes_per_batch is None else volumes_per_batch
        self._apart = -(-batch_size // together)  # so many draws in a row of one volume are all different
        fewest = min(map(len, self._clusters))
        if fewest < self._apart:
            raise UserError(
                f"expected {counted(self._apart, 'slice')} or more of every volume for balance, as a batch of "
                f"{batch_size} takes so many of each of {counted(together, 'volume')}, found a volume with "
                f"{fewest}: give a smaller batch_size, keep more slices, or leave balance out"
            )

    def draw(self, epoch: int) -> Indices:
        """The slices (draws,) of an epoch; those of a volume with few slices come several times."""
        rng = np.random.default_rng((self.seed, epoch))
        found = np.empty(self.draws, np.int64)
        for turn, volume in enumerate(rng.permutation(len(self._clusters))):
            (places,) = np.nonzero(self._turns == turn)
            found[places] = self._in_a_row(self._clusters[volume], len(places), rng)
        members = rng.integers(self._sizes[found])
        slices: Indices = self._members[self._starts[found] + members]
        return slices

    def _in_a_row(self, clusters: Indices, wanted: int, rng: np.random.Generator) -> Indices:
        """So many of the clusters of a volume: one random order of all of them after the other."""
        row: list[int] = rng.permutation(clusters)[:wanted].tolist()
        while len(row) < wanted:
            left: list[int] = rng.permutation(clusters).tolist()
            while left:
                latest = row[len(row) - self._apart + 1 :]
                row.append(left.pop(next(place for place, each in enumerate(left) if each not in latest)))
        return np.array(row[:wanted], np.int64)


def _turns(draws: int, volumes: int, batch_size: int, volumes_per_batch: int | None) -> Indices:
    """Which of the volumes, in the order of their turns, each draw (draws,) of an epoch is of."""
    draw = np.arange(draws)
    if volumes_per_batch is None:
        return draw % volumes
    whole = is_number(volumes_per_batch, int) and volumes_per_batch > 0
    if not whole or volumes_per_batch > volumes or batch_size % volumes_per_batch:
        raise UserError(
            f"expected volumes_per_batch to divide a batch of {batch_size} evenly, and at most "
            f"{counted(volumes, 'volume')}, found {volumes_per_batch!r}: change it, or leave it out"
        )
    batch, place = np.divmod(draw, batch_size)
    turns: Indices = (batch * volumes_per_batch + place % volumes_per_batch) % volumes
    return turns
