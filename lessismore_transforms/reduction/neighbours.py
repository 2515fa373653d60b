"""Hashes that are close to each other, exactly and fast: exemplars of whole data sets, all neighbours of two sets.

Multi-index hashing (Norouzi, Punjani & Fleet, CVPR 2012): where two hashes differ in few bits, one of their four
bands of 16 bits differs in very few. So all hashes are filed four times, once by each band, and a search opens only the
files whose key is close to the same band of the hash. For large radii or small sets these files hold so many hashes
that reading all hashes is faster, and then all are read. Both ways are exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.compiled import compiled
from lessismore_transforms.reduction.hashing import Hashes
from lessismore_transforms.reduction.selection import Exemplars, Indices

_BANDS, _BAND_BITS = 4, 16
_KEYS = 1 << _BAND_BITS
_KEY = np.uint64(_KEYS - 1)
_LEAST = 4096  # hashes below which filing them costs more than it saves
_LOOKUP_COST = 4  # of opening a file and of each hash in it, in hashes read in a row
_FLIPS = np.array(sorted(range(_KEYS), key=int.bit_count), np.uint64)  # changes of a key, those of fewest bits first
_FLIPS_UP_TO = np.concatenate([[0], np.cumsum(np.bincount(np.bitwise_count(_FLIPS)))])  # [e + 1]: of at most e bits

_EVEN_BITS, _EVEN_PAIRS = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
_EVEN_NIBBLES, _BYTES = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)
_0, _1, _2, _4, _56 = map(np.uint64, (0, 1, 2, 4, 56))  # a plain integer would make numba compute in float64


def exemplars_of_hashes(hashes: Hashes, threshold: int, *, order: npt.ArrayLike | None = None) -> Exemplars:
    """The exemplars of any number of hashes: keep each hash that is not close to an earlier kept one.

    Equal to `selection.exemplars`.

    Args:
        hashes: uint64 (n,).
        threshold: bits of 64; a hash is removed at a distance <= this.
        order: order of the walk, a permutation of 0..n-1; by default 0..n-1.

    Returns:
        Exemplars; `kept_by` is the first kept hash within the threshold, in the order of the walk.

    Raises:
        UserError: the hashes are not uint64 (n,), the threshold is not in 0..64 or the order is not a permutation.
    """
    _check(threshold, hashes)
    n = len(hashes)
    walk = np.arange(n) if order is None else np.asarray(order, np.int64)
    if not np.array_equal(np.sort(walk), np.arange(n)):
        raise UserError(f"expected an order that names each of 0..{n - 1} once, found {len(walk)} others")
    walked = hashes[walk]
    claimed_by = np.full(n, -1, np.int64)
    _claim(walked, np.uint64(threshold), *_file(walked, threshold), claimed_by)
    kept_by = np.empty(n, np.int64)
    kept_by[walk] = walk[claimed_by]
    distance = np.bitwise_count(hashes ^ hashes[kept_by]).astype(np.float64)
    return Exemplars(kept_by == np.arange(n), kept_by, distance)


def neighbours_within(hashes: Hashes, others: Hashes, radius: int) -> tuple[Indices, Indices, npt.NDArray[np.uint8]]:
    """All pairs of a hash and another one that are at most `radius` bits apart.

    The result takes 17 bytes per pair. Where very many are close, search for parts of `hashes`, whose sizes
    `count_neighbours` tells.

    Args:
        hashes: uint64 (n,).
        others: uint64 (m,); with `hashes` itself each hash finds itself at 0 bits, and each pair is found twice.
        radius: bits of 64; a distance <= this counts.

    Returns:
        For each pair, sorted by hash and then by other: index into `hashes` (int64), index into `others` (int64), and
        distance in bits (uint8).

    Raises:
        UserError: the hashes are not uint64 (n,) and (m,), or the radius is not in 0..64.
    """
    _check(radius, hashes, others)
    files = _file(others, radius)
    counts = np.zeros(len(hashes), np.int64)
    _find(hashes, others, np.uint64(radius), *files, counts, np.empty(0, np.int64))
    columns = np.empty(counts.sum(), np.int64)
    _find(hashes, others, np.uint64(radius), *files, counts, columns)
    rows = np.repeat(np.arange(len(hashes)), counts)
    return rows, columns, np.bitwise_count(hashes[rows] ^ others[columns])


def count_neighbours(hashes: Hashes, others: Hashes, radius: int) -> Indices:
    """The number, int64 (n,), of `others` (m,) that are at most `radius` bits from each of `hashes` (n,).

    Raises:
        UserError: the hashes are not uint64 (n,) and (m,), or the radius is not in 0..64.
    """
    _check(radius, hashes, others)
    counts = np.zeros(len(hashes), np.int64)
    _find(hashes, others, np.uint64(radius), *_file(others, radius), counts, np.empty(0, np.int64))
    return counts


def _check(radius: float, *sets: Hashes) -> None:
    for hashes in sets:
        if hashes.dtype != np.uint64 or hashes.ndim != 1:
            raise UserError(f"expected uint64 hashes (n,), found {hashes.dtype} {hashes.shape}; make them with dhash")
    if not (0 <= radius <= 64 and int(radius) == radius):
        raise UserError(f"expected a distance of 0 to 64 whole bits, found {radius}; 6 is the paper's threshold")


def _file(
    hashes: Hashes, radius: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], Hashes, npt.NDArray[np.int64]]:
    """File the hashes by each band, or not at all where reading all of them is faster.

    Returns:
        starts: int64 (4, 65537), where the members of each key begin; (0, 0) where nothing is filed.
        members: int32 (4, n), indices of hashes by key.
        flips: uint64 (65536,), the bits to change in a key to get the keys of the files to open.
        tries: int64 (4,), the number of flips that each band takes. With a radius of 4 q + r bits, two hashes that
            differ in more than q bits in each of the first r + 1 bands and in more than q - 1 in the others differ
            in more than the radius; so q and q - 1 bits are enough.
    """
    quotient, rest = divmod(int(radius), _BANDS)
    tries = np.array([_FLIPS_UP_TO[quotient + 1 if band <= rest else quotient] for band in range(_BANDS)], np.int64)
    if len(hashes) < max(_LEAST, _LOOKUP_COST * tries.sum()):
        return np.empty((0, 0), np.int64), np.empty((0, 0), np.int32), _FLIPS, tries
    starts = np.zeros((_BANDS, _KEYS + 1), np.int64)
    members = np.empty((_BANDS, len(hashes)), np.int32)
    _sort_by_bands(hashes, starts, members)
    return starts, members, _FLIPS, tries


@compiled()
def _sort_by_bands(hashes: Hashes, starts: npt.NDArray[np.int64], members: npt.NDArray[np.int32]) -> None:
    for band in range(_BANDS):
        start = starts[band]
        for value in hashes:
            start[_key(value, band) + _1] += 1
        for key in range(_KEYS):
            start[key + 1] += start[key]
        places = start[:-1].copy()
        for index in range(len(hashes)):
            key = _key(hashes[index], band)
            members[band, places[key]] = index
            places[key] += 1


@compiled()
def _claim(
    hashes: Hashes,
    threshold: np.uint64,
    starts: npt.NDArray[np.int64],
    members: npt.NDArray[np.int32],
    flips: Hashes,
    tries: npt.NDArray[np.int64],
    claimed_by: Indices,
) -> None:
    """Walk through the hashes; an unclaimed one claims itself and all unclaimed ones within the threshold.

    Claimed hashes are dropped from the files, and from the list of hashes to read, when a search meets them.
    """
    stops = starts[:, 1:].copy()
    unread, unread_hashes, left = np.arange(len(hashes)), hashes.copy(), len(hashes)
    for index in range(len(hashes)):
        if claimed_by[index] >= 0:
            continue
        value = hashes[index]
        claimed_by[index] = index
        if _opens_files(value, starts, stops, flips, tries, left):
            for band in range(_BANDS):
                for flip in flips[: tries[band]]:
                    key = _key(value, band) ^ flip
                    stop = starts[band, key]
                    for place in range(stop, stops[band, key]):
                        other = members[band, place]
                        if claimed_by[other] >= 0:
                            continue
                        if _distance(value, hashes[other]) <= threshold:
                            claimed_by[other] = index
                        else:
                            members[band, stop] = other
                            stop += 1
                    stops[band, key] = stop
        else:
            stop = 0
            for place in range(left):
                other = unread[place]
                if claimed_by[other] >= 0:
                    continue
                if _distance(value, unread_hashes[place]) <= threshold:
                    claimed_by[other] = index
                else:
                    unread[stop], unread_hashes[stop] = other, unread_hashes[place]
                    stop += 1
            left = stop


@compiled()
def _find(
    hashes: Hashes,
    others: Hashes,
    radius: np.uint64,
    starts: npt.NDArray[np.int64],
    members: npt.NDArray[np.int32],
    flips: Hashes,
    tries: npt.NDArray[np.int64],
    counts: Indices,
    columns: Indices,
) -> None:
    """Write the number of neighbours of each hash to `counts` and, where `columns` has room, their sorted indices."""
    fill = columns.size > 0
    found = 0
    for row in range(len(hashes)):
        value, first = hashes[row], found
        if _opens_files(value, starts, starts[:, 1:], flips, tries, len(others)):
            for band in range(_BANDS):
                for flip in flips[: tries[band]]:
                    key = _key(value, band) ^ flip
                    for place in range(starts[band, key], starts[band, key + _1]):
                        other = members[band, place]
                        if _distance(value, others[other]) > radius:
                            continue
                        if _found_before(value, others[other], band, flips, tries):
                            continue
                        if fill:
                            columns[found] = other
                        found += 1
            if fill:
                columns[first:found].sort()
        elif fill:
            for column in range(len(others)):
                if _distance(value, others[column]) <= radius:
                    columns[found] = column
                    found += 1
        else:
            for other in others:  # without branches: eight at once
                found += _distance(value, other) <= radius
        counts[row] = found - first


@compiled()
def _opens_files(
    value: np.uint64, starts: Any, stops: Any, flips: Hashes, tries: npt.NDArray[np.int64], left: int
) -> bool:
    """Whether reading the files around a hash is faster than reading all `left` hashes."""
    work = tries.sum()
    if starts.size == 0 or _LOOKUP_COST * work >= left:
        return False
    for band in range(_BANDS):
        for flip in flips[: tries[band]]:
            key = _key(value, band) ^ flip
            work += stops[band, key] - starts[band, key]
    return bool(_LOOKUP_COST * work < left)


@compiled()
def _found_before(value: np.uint64, other: np.uint64, band: int, flips: Hashes, tries: npt.NDArray[np.int64]) -> bool:
    """Whether a search in an earlier band found the same pair."""
    for earlier in range(band):
        farthest = _distance(flips[tries[earlier] - 1], _0)
        if _distance(_key(value, earlier), _key(other, earlier)) <= farthest:
            return True
    return False


@compiled()
def _key(value: np.uint64, band: int) -> np.uint64:
    return (value >> np.uint64(_BAND_BITS * band)) & _KEY


@compiled()
def _distance(value: np.uint64, other: np.uint64) -> np.uint64:
    """The number of differing bits; the compiler turns this form into one instruction."""
    bits = value ^ other
    bits = bits - ((bits >> _1) & _EVEN_BITS)
    bits = (bits & _EVEN_PAIRS) + ((bits >> _2) & _EVEN_PAIRS)
    bits = (bits + (bits >> _4)) & _EVEN_NIBBLES
    return (bits * _BYTES) >> _56
