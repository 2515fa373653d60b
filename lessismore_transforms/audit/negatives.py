"""How likely a negative is a near copy: counted exactly, for batches that are drawn without putting back.

A batch holds B different pictures of the n of a selection, each set equally likely (a shuffled epoch). For picture i
with c_i near copies among the other n - 1 the number of near copies among its B - 1 negatives is hypergeometric, so

    share        = mean over i of c_i / (n - 1)
    per picture  = (B - 1) * share
    at least one = 1 - mean over i of C(n - 1 - c_i, B - 1) / C(n - 1, B - 1)

where C are binomial coefficients. Near copies are slices of the same volume within some bits of the difference hash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.hashing import hamming_distances

if TYPE_CHECKING:
    import pandas as pd

Ints = NDArray[np.int64]


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


def likelihood(copies: Ints, batch_size: int) -> Likelihood:
    """How likely near copies are among the negatives of a picture; see the equations above.

    Args:
        copies: (n,), the number of near copies of each picture among the others.
        batch_size: B; of fewer pictures all are a batch.

    Raises:
        UserError: there are fewer than 2 pictures, or the batch has.
    """
    n = len(copies)
    if min(n, batch_size) < 2:
        raise UserError(
            f"expected 2 pictures or more in a set and in a batch, found {n} and {batch_size}: one has no negatives"
        )
    drawn = min(batch_size, n) - 1
    share = float(copies.mean()) / (n - 1)
    return Likelihood(share, drawn * share, 1 - float(_none_of(copies, n - 1, drawn).mean()))


def _none_of(copies: Ints, of: int, drawn: int) -> NDArray[np.float64]:
    """The probability that none of `copies` is among `drawn` of `of`: C(of - copies, drawn) / C(of, drawn)."""
    rest = of - copies
    logs = gammaln(rest + 1) - gammaln(np.maximum(rest - drawn, 0) + 1) - gammaln(of + 1) + gammaln(of - drawn + 1)
    result: NDArray[np.float64] = np.where(rest >= drawn, np.exp(logs), 0.0)
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
