"""The measures of redundancy (Section 2.1 of the paper): features, range, and the ranking of a volume by each of them.

=========  =============================  ======================  ==================
measure    features of a slice            more similar            range
=========  =============================  ======================  ==================
hash       64-bit difference hash         fewer differing bits    0 to 64 bits
ssim       its 8-bit picture              larger                  -1 to 1
mi         its 8-bit picture              larger                  1 to 2
deepnet    embedding by a network         larger cosine           -1 to 1
=========  =============================  ======================  ==================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.hashing import dhash, hamming_distances
from lessismore_transforms.reduction.selection import Ranking, removal_order


@dataclass(frozen=True)
class Measure:
    """Name, unit and range of a measure: a similarity is larger for slices that are more alike, a distance smaller."""

    title: str
    unit: str
    similarity: bool
    low: float
    high: float
    whole: bool = False


MEASURES = {
    "hash": Measure("HASH", "bits", similarity=False, low=0, high=64, whole=True),
    "ssim": Measure("SSIM", "SSIM", similarity=True, low=-1, high=1),
    "mi": Measure("MI", "normalised mutual information", similarity=True, low=1, high=2),
    "deepnet": Measure("DeepNet", "cosine similarity", similarity=True, low=-1, high=1),
}

BINS = (16, 32, 64, 128, 256)  # grey levels of the joint histogram of `mi`


def features_of(
    measure: str,
    pictures: NDArray[np.uint8],
    *,
    encoder: Callable[[Any], Any] | None = None,
    device: str | None = None,
    precision: str = "float32",
) -> NDArray[Any]:
    """The features that the measure compares, for each of a volume's 8-bit pictures (n, H, W).

    Args:
        measure: a key of `MEASURES`.
        pictures: per-slice min-max, in canonical orientation.
        encoder: takes (N, 3, H, W) and gives (N, D); `deepnet` only.
        device: torch device of the encoder.
        precision: `float32` or `bfloat16`; `deepnet` only.
    """
    if measure == "hash":
        return dhash(pictures)
    if measure == "deepnet":
        from lessismore_transforms.reduction.embedding import embed

        if encoder is None:
            raise UserError("deepnet needs an encoder, a function of (N, 3, H, W): give one")
        return embed(pictures, encoder, device=device or "cpu", dtype=precision)
    return pictures


def pair_matrix(measure: str, features: NDArray[Any], *, bins: int = 64, device: str | None = None) -> NDArray[Any]:
    """The distances or similarities (n, n) of all pairs of a volume's slices, in the measure's own unit.

    Args:
        measure: a key of `MEASURES`.
        features: uint64 hashes (n,), 8-bit pictures (n, H, W) or embeddings (n, D), as `features_of` gives them.
        bins: grey levels of the joint histogram; `mi` only.
        device: a torch device for `ssim` and `mi`; None computes on the CPU without torch.
    """
    if not len(features):
        return np.zeros((0, 0))
    if measure == "hash":
        return hamming_distances(features, features)
    if measure == "ssim":
        from lessismore_transforms.reduction.ssim import ssim_matrix

        return ssim_matrix(features, device=device)
    if measure == "mi":
        from lessismore_transforms.reduction.mutual_information import nmi_matrix

        return nmi_matrix(features, bins=bins, device=device)
    from lessismore_transforms.reduction.embedding import cosine_matrix

    return cosine_matrix(features)


def rank_slices(
    measure: str,
    features: NDArray[Any],
    candidate: NDArray[np.bool_],
    *,
    matrix: NDArray[Any] | None = None,
    count: int | None = None,
    device: str | None = None,
) -> Ranking:
    """The pair rule's ranking of a volume's slices.

    Args:
        measure: a key of `MEASURES`.
        features: of all n slices, as `pair_matrix` takes them.
        candidate: (n,) slices that take part; the others get removed_at nan, removed_by -1 and rank 0.
        matrix: the candidates' pairs, where they are known already.
        count: rank only until this many slices are left, which get rank 0; it saves time for `ssim` only.
        device: as `pair_matrix` takes it.
    """
    chosen = np.flatnonzero(candidate)
    if matrix is None and measure == "ssim" and count is not None and count < len(chosen):
        from lessismore_transforms.reduction.ssim import ssim_removal_order

        ranking = ssim_removal_order(features[chosen], count=count, device=device)
    else:
        if matrix is None:
            matrix = pair_matrix(measure, features[chosen], device=device)
        ranking = removal_order(matrix, similarity=MEASURES[measure].similarity)
    removed_at, removed_by = np.full(len(candidate), np.nan), np.full(len(candidate), -1)
    ranks = np.zeros(len(candidate), dtype=np.int64)
    removed_at[chosen] = ranking.removed_at
    removed_by[chosen] = np.where(ranking.removed_by < 0, -1, chosen[ranking.removed_by])
    ranks[chosen] = ranking.rank
    return Ranking(removed_at, removed_by, ranks)
