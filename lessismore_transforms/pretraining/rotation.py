"""One member of each cluster of near copies in an epoch, another one in the next."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GOLDEN, _FIRST, _SECOND = map(np.uint64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_30, _27, _31 = map(np.uint64, (30, 27, 31))


class Rotation:
    """The order of epochs in which each cluster gives one of its members, all of them in turn.

    A cluster of k slices gives each of them once in every k epochs, in an order that is drawn anew for the next k. So
    an epoch is as long as that of the reduced set, and all slices are seen in time.

    Args:
        clusters: int64 (n,), the number of each slice's cluster, from 0 without gaps.
        seed: of the turns and of the order of the clusters.

    Attributes:
        draws: number of clusters.
    """

    def __init__(self, clusters: npt.NDArray[np.int64], seed: int = 0) -> None:
        self.clusters, self.seed = clusters, seed
        self._sizes = np.bincount(clusters)  # (clusters,)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self.draws = len(self._sizes)

    def draw(self, epoch: int) -> npt.NDArray[np.int64]:
        """The members (draws,) of an epoch, in a random order."""
        cycle, turn = np.divmod(epoch, self._sizes)  # (clusters,)
        keys = random_keys(self.seed, cycle[self.clusters], np.arange(len(self.clusters)))
        members = np.lexsort((keys, self.clusters))[self._starts + turn]
        return np.random.default_rng((self.seed, epoch)).permutation(members)


def random_keys(seed: int, cycle: npt.NDArray[np.int64], member: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """A random number, uint64 (n,), for each pair of a cycle (n,) and a member (n,), which depends on nothing else."""
    key = _splitmix64(np.array([seed], np.uint64))
    for counter in (cycle, member):
        key = _splitmix64(key ^ counter.astype(np.uint64))
    return key


def _splitmix64(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """One step of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014, doi 10.1145/2660193.2660195, Figure 13)."""
    value = value + _GOLDEN
    value = (value ^ (value >> _30)) * _FIRST
    value = (value ^ (value >> _27)) * _SECOND
    return value ^ (value >> _31)
