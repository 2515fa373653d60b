"""Measures of an encoder that need no labels, by which an epoch may be chosen without a downstream score.

RankMe tells how many dimensions features use, alignment how alike features of two views of a picture are, uniformity
how evenly features lie on the sphere, and near copies whether neighbours are merely the next slices of a volume.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from lessismore_transforms.errors import UserError
from lessismore_transforms.pretraining.indicators import NEAR_BITS, popcount, rank_me
from lessismore_transforms.wording import counted

Numbers = torch.Tensor | NDArray[np.int64] | NDArray[np.uint64]

_PAIRS = 2**24  # of features compared at once: 64 MiB


class NearCopies(NamedTuple):
    """Shares of slices.

    Attributes:
        nearest: the nearest neighbour is a near copy.
        possible: there is a near copy among all slices, so that the nearest could be one.
    """

    nearest: float
    possible: float


class EncoderMeasures(NamedTuple):
    """A row for a checkpoint.

    Attributes:
        name: of the checkpoint.
        pictures: number of pictures.
        rank_me: see `indicators.rank_me`; more is better.
        alignment: see `alignment`; less is better, if uniformity does not grow.
        uniformity: see `uniformity`; less is better.
        near_copies: see `near_copy_share`.
    """

    name: str
    pictures: int
    rank_me: float
    alignment: float
    uniformity: float
    near_copies: NearCopies


@torch.no_grad()
def alignment(features: torch.Tensor, others: torch.Tensor, *, alpha: float = 2) -> float:
    """The mean distance of two views of the same picture, to a power: 0 if they are the same, up to 4.

    Wang & Isola 2020 (arXiv 2005.10242, Section 4.1), of features of length 1.

    Args:
        features: (N, F), of one view of each picture.
        others: (N, F), of another view of the same pictures.
        alpha: the power.

    Raises:
        UserError: the shapes differ or features are not finite.
    """
    if features.shape != others.shape:
        raise UserError(
            f"expected features of two views of the same pictures, found {tuple(features.shape)} and "
            f"{tuple(others.shape)}: embed the same pictures twice"
        )
    x, y = _directions(features), _directions(others)  # (N, F)
    return float(torch.linalg.vector_norm(x - y, dim=1).pow(alpha).mean(dtype=torch.float64))


@torch.no_grad()
def uniformity(features: torch.Tensor, *, t: float = 2) -> float:
    """The logarithm of the mean over pairs of exp(-t d^2): 0 if all are the same, about -2 t if evenly on a sphere.

    Wang & Isola 2020 (arXiv 2005.10242, Section 4.1), of features of length 1; a picture makes no pair with itself.
    Time grows with N^2 F, memory with N F.

    Args:
        features: (N, F), N > 1.
        t: the width of the kernel, 0 or more.

    Raises:
        UserError: there are fewer than two pictures, or features are not finite.
    """
    z = _directions(features)
    count = len(z)
    total = 0.0
    for start, end in _parts(count):
        cosines = z[start:end] @ z[start:].T  # (R, N - start), with d^2 = 2 - 2 cos
        total += float(cosines.sub_(1).mul_(2 * t).exp_().triu_(1).sum(dtype=torch.float64))
    return math.log(total / (count * (count - 1) / 2))


@torch.no_grad()
def nearest_neighbours(features: torch.Tensor) -> torch.Tensor:
    """The position of the most similar other picture by cosine, int64 (N,).

    Args:
        features: (N, F), N > 1.

    Raises:
        UserError: there are fewer than two pictures, or features are not finite.
    """
    z = _directions(features)
    found = []
    for start, end in _parts(len(z)):
        cosines = z[start:end] @ z.T  # (R, N)
        cosines[:, start:end].fill_diagonal_(-torch.inf)
        found.append(cosines.argmax(dim=1))
    return torch.cat(found)


def near_copy_share(features: torch.Tensor, hashes: Numbers, volumes: Numbers, *, bits: int = NEAR_BITS) -> NearCopies:
    """The share of slices whose nearest neighbour is a near copy: of the same volume, within some bits of its hash.

    A set that was reduced within these bits has no near copies: `possible` tells how many slices have one at all.

    Args:
        features: (N, F), N > 1.
        hashes: int64 or uint64 (N,), the bits of the difference hash of each slice.
        volumes: int64 (N,), the number of the volume of each slice.
        bits: a slice of the same volume is a near copy up to this Hamming distance.

    Raises:
        UserError: lengths differ, bits are out of range, or features are not usable.
    """
    codes, numbers = _integers(hashes), _integers(volumes)
    if not codes.shape == numbers.shape == features.shape[:1]:
        raise UserError(
            f"expected a hash and a volume for each row of features, found {tuple(codes.shape)}, "
            f"{tuple(numbers.shape)} and {tuple(features.shape)}: give those of the same slices"
        )
    if not 0 <= bits <= 64:
        raise UserError(f"expected bits from 0 to 64, found {bits}: {NEAR_BITS} is usual")
    nearest = nearest_neighbours(features).cpu()
    near = (numbers == numbers[nearest]) & (popcount(codes ^ codes[nearest]) <= bits)
    return NearCopies(float(near.double().mean()), float(_has_near_copy(codes, numbers, bits).double().mean()))


def measures_of(
    checkpoints: Iterable[tuple[str, torch.Tensor, torch.Tensor]],
    hashes: Numbers,
    volumes: Numbers,
    *,
    bits: int = NEAR_BITS,
) -> Iterator[EncoderMeasures]:
    """A row for each checkpoint, one after the other, so that the features of one only need be held.

    Args:
        checkpoints: name, features (N, F) of pictures without augmentation, and of another view of them.
        hashes: int64 or uint64 (N,), of the pictures.
        volumes: int64 (N,), of the pictures.
        bits: as for `near_copy_share`.

    Raises:
        UserError: as the measures; the sentence names the checkpoint.
    """
    for name, features, others in checkpoints:
        try:
            yield EncoderMeasures(
                name,
                len(features),
                float(rank_me(_directions(features))),
                alignment(features, others),
                uniformity(features),
                near_copy_share(features, hashes, volumes, bits=bits),
            )
        except UserError as error:
            raise UserError(f"{name}: {error}") from error


def _has_near_copy(hashes: torch.Tensor, volumes: torch.Tensor, bits: int) -> torch.Tensor:
    """Whether another slice of its volume is a near copy of a slice, bool (N,)."""
    order = volumes.argsort(stable=True)
    found = torch.zeros(len(hashes), dtype=torch.bool)
    for rows in torch.split(order, np.unique(volumes.numpy(), return_counts=True)[1].tolist()):
        near = popcount(hashes[rows, None] ^ hashes[rows]) <= bits  # (n, n)
        found[rows] = near.fill_diagonal_(False).any(dim=1)
    return found


def _directions(features: torch.Tensor) -> torch.Tensor:
    """Features float32 (N, F) of length 1."""
    if features.ndim != 2 or len(features) < 2:
        raise UserError(f"expected features (N, F) of two pictures or more, found {tuple(features.shape)}: embed more")
    if bad := int((~features.isfinite()).any(dim=1).sum()):
        raise UserError(
            f"expected finite features, found others for {bad} of {counted(len(features), 'picture')}: look for a "
            "training that diverged"
        )
    return F.normalize(features.float(), dim=1)


def _parts(count: int) -> Iterator[tuple[int, int]]:
    """Ends of ranges of rows that are compared with all at once."""
    rows = max(1, _PAIRS // count)
    yield from ((start, min(start + rows, count)) for start in range(0, count, rows))


def _integers(values: Numbers) -> torch.Tensor:
    """Integers as int64 on the CPU, bit by bit."""
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().long()
    array = np.ascontiguousarray(values)
    return torch.from_numpy(array.view(np.int64) if array.dtype == np.uint64 else array.astype(np.int64))
