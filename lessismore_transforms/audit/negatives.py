"""How likely a negative is a near copy: counted exactly, for the two ways in which batches are drawn.

The negatives of a picture are the B - 1 others of its batch. `Draws` says of picture i how many of them, d, are drawn
without putting back from a pool of m_i pictures, any set equally likely:

    a shuffled epoch   d = B - 1 of all m = n - 1 others; all pictures are drawn equally often
    balanced           d = b - 1 of the m_i = n_i - 1 others of its volume, where a batch takes b pictures of each of k
                       volumes in turn; all volumes are drawn equally often

Near copies are slices of the same volume, so those in the pool are all c_i that there are. Their number among the
negatives is hypergeometric; with weights w_i by how often a picture is drawn,

    per picture  = sum over i of w_i d c_i / m_i
    share        = per picture / (B - 1)
    at least one = 1 - sum over i of w_i C(m_i - c_i, d) / C(m_i, d)

where C are binomial coefficients. A batch that is no multiple of the volumes takes one more of some of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.hashing import hamming_distances

if TYPE_CHECKING:
    import pandas as pd

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Likelihood(NamedTuple):
    """How likely near copies are among the negatives of a picture.

    Attributes:
        share: probability that a negative is a near copy.
        per_picture: expected number of them in a batch.
        at_least_one: probability that there is one or more in a batch.
    """

    share: float
    per_picture: float
    at_least_one: float


@dataclass(frozen=True, eq=False)
class Draws:
    """How the negatives of n pictures are drawn; see the equations above.

    Args:
        batch_size: B, all pictures where there are fewer.
        weight: (n,), the probability that a drawn picture is this one.
        pool: (n,), m_i.
        drawn: (n, c), the numbers d that there are.
        chance: (c,), the probability of each.
    """

    batch_size: int
    weight: Floats
    pool: Ints
    drawn: Ints
    chance: Floats

    @property
    def per_other(self) -> Floats:
        """(n,), how often a certain other picture of its pool is among the negatives of each picture."""
        found: Floats = self.drawn @ self.chance / np.maximum(self.pool, 1)
        return found


def shuffled(n: int, batch_size: int) -> Draws:
    """Batches of a shuffled epoch of n pictures.

    Raises:
        UserError: there are fewer than 2 pictures, or the batch has.
    """
    _check(n, batch_size)
    drawn = min(batch_size, n) - 1
    return Draws(drawn + 1, np.full(n, 1 / n), np.full(n, n - 1), np.full((n, 1), drawn), np.ones(1))


def balanced(volumes: NDArray[np.generic], batch_size: int, volumes_per_batch: int | None = None) -> Draws:
    """Batches that take from the volumes in turn.

    Args:
        volumes: (n,), the volume of each picture.
        batch_size: B.
        volumes_per_batch: k; none, or more than there are, for all.

    Raises:
        UserError: there are fewer than 2 pictures, or the batch has.
    """
    _check(len(volumes), batch_size)
    member, sizes = np.unique(volumes, return_inverse=True, return_counts=True)[1:]
    together = min(volumes_per_batch or len(sizes), len(sizes))
    fewer, more = divmod(batch_size, together)  # of each volume; of so many one more
    chance = np.array([(together - more) * fewer, more * (fewer + 1)]) / batch_size
    drawn = np.minimum([[max(fewer - 1, 0), fewer]], sizes[member][:, None] - 1)
    weight = 1 / (len(sizes) * sizes[member])
    return Draws(min(batch_size, len(volumes)), weight, sizes[member] - 1, drawn, chance)


def likelihood(copies: Ints, draws: Draws) -> Likelihood:
    """How likely near copies are among the negatives of a picture; see the equations above.

    Args:
        copies: (n,), the number of near copies of each picture among the others.
        draws: how those are drawn.
    """
    per_picture = float(draws.weight @ (draws.per_other * copies))
    some = (1 - _none_of(copies[:, None], draws.pool[:, None], draws.drawn)) @ draws.chance
    return Likelihood(per_picture / (draws.batch_size - 1), per_picture, min(1.0, float(draws.weight @ some)))


def _check(n: int, batch_size: int) -> None:
    if min(n, batch_size) < 2:
        raise UserError(
            f"expected 2 pictures or more in a set and in a batch, found {n} and {batch_size}: one has no negatives"
        )


def _none_of(copies: Ints, of: Ints, drawn: Ints) -> Floats:
    """The probability that none of `copies` is among `drawn` of `of`: C(of - copies, drawn) / C(of, drawn)."""
    rest = of - copies
    logs = gammaln(rest + 1) - gammaln(np.maximum(rest - drawn, 0) + 1) - gammaln(of + 1) + gammaln(of - drawn + 1)
    result: Floats = np.where(rest >= drawn, np.exp(logs), 0.0)
    return np.where(copies == 0, 1.0, result)


def copies_at(slices: pd.DataFrame) -> Ints:
    """How many slices of the same volume differ from each slice in exactly 0, 1, ... 64 bits, (n, 65)."""
    hashes = slices["hash"].to_numpy(dtype=np.uint64)
    counts = np.zeros((len(slices), 65), np.int64)
    for rows in slices.groupby("volume", sort=False).indices.values():
        differing = hamming_distances(hashes[rows], hashes[rows])
        for place, row in zip(rows, differing, strict=True):
            counts[place] = np.bincount(row, minlength=65)
    counts[:, 0] -= 1  # itself
    return counts
