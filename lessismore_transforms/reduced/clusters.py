"""Clusters of near copies: the slices that a selection removed, and the kept slice that stands for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.errors import ManifestError


def cluster_numbers(names: Sequence[str], kept_by: Sequence[str]) -> NDArray[np.int64]:
    """The number of each slice's cluster, from 0 in the order of the kept slices.

    A removed slice belongs to the kept one that its `kept_by` leads to, over other removed slices where it must: the
    pair rule may remove a slice in favour of one that it removes later.

        >>> cluster_numbers(["a", "b", "c", "d"], ["", "c", "a", ""]).tolist()
        [0, 0, 0, 1]

    Args:
        names: of n slices.
        kept_by: for each, the name of the slice that stands for it, empty for a kept slice.

    Returns:
        int64 (n,).

    Raises:
        ManifestError: a name leads to none of the slices, or in a circle.
    """
    import pandas as pd

    leads = np.asarray(kept_by, dtype=object)
    kept = leads == ""
    own = np.arange(len(leads))
    lead = np.where(kept, own, pd.Index(names).get_indexer(pd.Index(leads)))
    if (lost := np.flatnonzero(lead < 0)).size:
        raise ManifestError(
            f"expected the slice that stands for {names[lost[0]]} among the slices, found no {leads[lost[0]]}: make "
            "the selection again with `select`, or give all outputs that it was made from"
        )
    for _ in range(len(leads).bit_length()):  # each turn doubles the steps that are taken
        lead = lead[lead]
    if (lost := np.flatnonzero(~kept[lead])).size:
        raise ManifestError(
            f"expected `kept_by` to lead to a kept slice, found that it leads from {names[lost[0]]} in a circle: make "
            "the selection again with `select`"
        )
    numbers: NDArray[np.int64] = np.unique(lead, return_inverse=True)[1].astype(np.int64)
    return numbers
