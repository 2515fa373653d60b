"""What all slices of a volume together are as negatives of each other, in exact copies, to an encoder.

C_ij is 1 where t2(j) is closer to t1(i) than t2(i) is, 1/2 where it is as close, else 0, with 1 - cosine as the
distance. Of an exact copy it is 1/2 in the mean; of slices of all other patients r0_i. Slices of a volume may be
anything between, so every pair counts by where it lies; which of them a hash takes for near copies does not matter.
With o_i, how often a certain other slice of its volume is among the negatives of slice i, and w_i, how often slice i is
drawn,

    exact copies = sum over i of w_i o_i sum over j of (C_ij - r0_i) / (1/2 - r0)

over the other slices j of the volume that the selection keeps. r0 is the mean of r0_i, weighted as the pairs are. Where
slices of a volume are no closer than those of other patients, it is 0, whatever the volumes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lessismore_transforms.analysis.group_intervals import Estimate, jackknife
from lessismore_transforms.audit.measure import LOSS
from lessismore_transforms.audit.rates import LEAST_ROOM, as_collisions, ceiling

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_ROWS = 256  # slices that are compared with all others at once


def collisions_within(first: Tensor, second: Tensor, members: Sequence[Ints]) -> list[Floats]:
    """C of each volume, (n_v, n_v).

    Args:
        first: directions of first views, (n, F).
        second: directions of second views, (n, F).
        members: of each volume its slices (n_v,).
    """
    found = []
    for rows in map(torch.from_numpy, members):
        distances = 1 - (first[rows] @ second[rows].T).double().numpy()
        found.append(as_collisions(distances - np.diag(distances)[:, None], LOSS))
    return found


def strangers(first: Tensor, second: Tensor, patients: NDArray[np.generic]) -> Floats:
    """r0_i, the mean of C over all slices of other patients, (n,); nan where there is one patient.

    Args:
        first: directions of first views, (n, F).
        second: directions of second views, (n, F).
        patients: (n,), of the slices.
    """
    member = np.unique(patients, return_inverse=True)[1]
    found = np.full(len(member), math.nan)
    for begin in range(0, len(member), _ROWS):
        rows = np.arange(begin, min(begin + _ROWS, len(member)))
        distances = 1 - (first[rows] @ second.T).double().numpy()  # (rows, n)
        own = distances[np.arange(len(rows)), rows]
        hits = as_collisions(distances - own[:, None], LOSS)
        others = member[rows][:, None] != member
        if others.any():
            found[rows] = np.where(others, hits, 0).sum(axis=1) / others.sum(axis=1)
    return found


def exact_copies(
    within: Sequence[Floats],
    members: Sequence[Ints],
    kept: NDArray[np.bool_],
    weight: Floats,
    per_other: Floats,
    control: Floats,
    patients: NDArray[np.generic],
) -> Estimate:
    """How many exact copies of a slice its negatives are worth; nan where an encoder tells no patients apart.

    Args:
        within: C of each volume.
        members: of each volume its slices.
        kept: (n,), the slices of a selection.
        weight: (n,), w.
        per_other: (n,), o.
        control: (n,), r0; nan where there is one patient.
        patients: (n,), of the slices; the interval is over them.
    """
    hits, others = np.zeros(len(kept)), np.zeros(len(kept))
    for rows, matrix in zip(members, within, strict=True):
        there = kept[rows]
        alone = ~np.eye(len(rows), dtype=bool)
        hits[rows] = (matrix * alone) @ there
        others[rows] = alone @ there.astype(float)
    share = np.where(kept, weight, 0.0)
    pairs = share * per_other * others
    excess = share * per_other * (hits - others * control)
    top = ceiling(LOSS)

    def of(rows: Ints) -> float:
        drawn, met = share[rows].sum(), pairs[rows].sum()
        if not drawn:
            return math.nan
        if not met:
            return 0.0  # no two of a volume meet
        room = top - float(pairs[rows] @ control[rows] / met)
        return float(excess[rows].sum() / room / drawn) if room >= LEAST_ROOM else math.nan

    return jackknife(of, patients)
