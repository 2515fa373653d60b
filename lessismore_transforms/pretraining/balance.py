"""Every volume equally often, whatever number of its slices a selection keeps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lessismore_transforms.errors import UserError
from lessismore_transforms.wording import counted

Indices = npt.NDArray[np.int64]


class Balanced:
    """The order of epochs that take from the volumes in turn.

    Draw number t of an epoch is of volume number t mod V, in an order of the V volumes that is drawn for each epoch.
    The slices of a volume come in a random order, all of them before one comes again, and no batch holds one twice:
    in a contrastive loss it would be a negative of itself. Of a cluster of near copies one member is drawn, each time
    anew; without clusters each slice is one of its own.

    Args:
        volumes: int64 (n,), the number of each slice's volume.
        clusters: int64 (n,), the number of each slice's cluster, from 0 without gaps; none has slices of two volumes.
        batch_size: of all processes together.
        seed: of all draws.

    Attributes:
        draws: number of clusters.

    Raises:
        UserError: a volume has fewer clusters than a batch takes of it.
    """

    def __init__(self, volumes: Indices, clusters: Indices, batch_size: int, seed: int = 0) -> None:
        self.seed = seed
        self._members = np.argsort(clusters, kind="stable")  # by cluster
        self._sizes = np.bincount(clusters)
        self._starts = np.cumsum(self._sizes) - self._sizes
        of_cluster = volumes[self._members[self._starts]]
        self._clusters = [np.flatnonzero(of_cluster == volume) for volume in np.unique(of_cluster)]
        self.draws = len(self._sizes)
        self._apart = -(-batch_size // len(self._clusters))  # so many draws in a row of one volume are all different
        fewest = min(map(len, self._clusters))
        if fewest < self._apart:
            raise UserError(
                f"expected {counted(self._apart, 'slice')} or more of every volume for balance, as a batch of "
                f"{batch_size} takes so many of each of {counted(len(self._clusters), 'volume')}, found a volume with "
                f"{fewest}: give a smaller batch_size, keep more slices, or leave balance out"
            )

    def draw(self, epoch: int) -> Indices:
        """The slices (draws,) of an epoch; those of a volume with few slices come several times."""
        rng = np.random.default_rng((self.seed, epoch))
        turns = rng.permutation(len(self._clusters))
        found = np.empty(self.draws, np.int64)
        for place, volume in enumerate(turns):
            wanted = len(range(place, self.draws, len(turns)))
            found[place :: len(turns)] = self._in_a_row(self._clusters[volume], wanted, rng)
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
