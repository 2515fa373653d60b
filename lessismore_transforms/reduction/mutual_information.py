"""Normalised mutual information (NMI) of the slices of a volume.

Wolf et al. 2024 (doi 10.1016/j.compbiomed.2024.109242), Section 2.1, MI, after Studholme et al. 1999: the ratio
(H(X) + H(Y)) / H(X, Y) of entropies, from 1 (independent) to 2 (each determines the other). The paper does not say how
many bins; here they are equal parts of 0..255, the same for all slices, so that the joint histogram of a slice with
itself gives H(X). scikit-image's `normalized_mutual_information` takes its edges from the range of the values, which
changes the result (by 1.6e-3 for 100 bins).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.compiled import compiled

if TYPE_CHECKING:
    import torch

Slices = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float64]

_BINS = (16, 32, 64, 128, 256)
_BLOCK = 2**15  # entries of a table computed at once, so that it takes little more memory than it has entries
_BATCH_CPU, _BATCH_GPU = 2**18, 2**24  # pixels that torch counts at once


def nmi_matrix(slices: Slices, *, bins: int = 64, device: str | None = None) -> Scores:
    """The NMI of each pair of slices, exact but for the rounding of float64.

    Memory beside the slices and the matrix: 2 MB and 8 bytes per pixel of one slice; with torch a copy of the slices
    and of these 8 bytes on the device and up to 1 GB there.

    Args:
        slices: uint8 (S, H, W), with pixels.
        bins: 16, 32, 64, 128 or 256 equal bins of 0..255.
        device: None for the compiled kernel on one core; "cpu", "cuda" or "cuda:1" for torch.

    Returns:
        float64 (S, S), symmetric, 2 on the diagonal. Two constant slices determine each other (2); a constant slice and
        another one are independent (1).

    Raises:
        UserError: the slices or the bins are not as above.
    """
    if slices.dtype != np.uint8 or slices.ndim != 3 or (len(slices) and 0 in slices.shape[1:]):
        raise UserError(
            f"expected uint8 slices (S, H, W) with pixels, found {slices.dtype} of shape {slices.shape}; "
            "scale them with min_max_uint8 and stack them first"
        )
    if bins not in _BINS:
        raise UserError(f"expected a number of bins out of {', '.join(map(str, _BINS))}, found {bins}")
    count, height, width = slices.shape
    pixels = np.ascontiguousarray(slices).reshape(count, height * width)
    bits = bins.bit_length() - 1
    information = _information(height * width)
    if device is None:
        joint = np.zeros((count, count))
        tables = np.zeros((4, bins * bins), np.uint32)
        for later in range(count):
            _joint_entropies(pixels, later, bits, information, tables, joint[later])
    else:
        joint = _joint_entropies_torch(pixels, bits, information, device)
    joint += np.tril(joint, -1).T
    single = joint.diagonal()
    known = single[:, None] + single
    return np.divide(known, joint, out=np.full_like(joint, 2), where=joint > 0)


def _information(pixels: int) -> Scores:
    """The part -p ln p of the entropy that n equal pixels add, with p = n / pixels, for n = 0..pixels.

    Computed by log1p, because rounding would lose most of the entropy of a nearly constant slice.
    """
    table = np.zeros(pixels + 1)
    for start in range(1, pixels + 1, _BLOCK):
        counts = np.arange(start, min(start + _BLOCK, pixels + 1))
        table[start : start + _BLOCK] = counts / pixels * np.log1p((pixels - counts) / counts)
    return table


@compiled()
def _joint_entropies(
    pixels: Slices, later: int, bits: int, information: Scores, counts: npt.NDArray[np.uint32], entropies: Scores
) -> None:
    """Write the joint entropies (S,) of one slice of (S, N) with each earlier one and with itself; counts are zeros."""
    for earlier in range(later + 1):
        _count(pixels[later], pixels[earlier], np.uint64(8 - bits), np.uint64(bits), counts)
        entropies[earlier] = _entropy(counts, 1 << bits, information)
        counts[:] = 0


@compiled()
def _count(pixels: Slices, others: Slices, shift: int, bits: int, counts: npt.NDArray[np.uint32]) -> None:
    """Add the joint histogram of two slices (N,) to four tables in turn, pixel by pixel; it is the sum of the tables.

    Neighbouring pixels are often equal, and the processor would have to wait for a count that it has just changed.
    """
    whole = pixels.size // 4 * 4
    for start in range(0, whole, 4):
        for table in range(4):
            place = np.uint64(start + table)  # unsigned: no check for wrap-around
            counts[table, ((pixels[place] >> shift) << bits) | (others[place] >> shift)] += np.uint32(1)
    for last in range(whole, pixels.size):
        counts[0, ((pixels[last] >> shift) << bits) | (others[last] >> shift)] += np.uint32(1)


@compiled()
def _entropy(counts: npt.NDArray[np.uint32], bins: int, information: Scores) -> float:
    """The entropy of a joint histogram, summed bin by bin so that rounding stays small."""
    entropy = 0.0
    for start in range(0, counts.shape[1], bins):
        subtotal = 0.0
        for key in range(start, start + bins):
            count = counts[0, key] + counts[1, key] + counts[2, key] + counts[3, key]
            if count:
                subtotal += information[count]
        entropy += subtotal
    return entropy


def _joint_entropies_torch(pixels: Slices, bits: int, information: Scores, device: str) -> Scores:
    """The joint entropies (S, S) of all slices with earlier ones and themselves, in batches of these."""
    import torch

    binned = torch.tensor(pixels, device=device) >> (8 - bits)
    table = torch.tensor(information, device=device)
    entropies = torch.zeros((len(pixels), len(pixels)), dtype=torch.float64, device=device)
    most = _BATCH_GPU if binned.is_cuda else _BATCH_CPU
    batch = max(1, most // max(pixels.shape[1], 1 << (2 * bits)))
    for later in range(len(pixels)):
        high = binned[later].int() << bits
        for start in range(0, later + 1, batch):
            part = slice(start, min(start + batch, later + 1))
            counts = _count_torch(high | binned[part], bits)
            entropies[later, part] = table[counts].sum(1)
    result: Scores = entropies.cpu().numpy()
    return result


def _count_torch(keys: torch.Tensor, bits: int) -> torch.Tensor:
    """The histogram of each row of keys, (n, N) to (n, bins * bins): whole numbers, exact in any order."""
    import torch

    width = 1 << (2 * bits)
    offsets = torch.arange(0, len(keys) * width, width, dtype=torch.int32, device=keys.device)
    return torch.bincount((keys + offsets[:, None]).flatten(), minlength=len(keys) * width).view(len(keys), width)
