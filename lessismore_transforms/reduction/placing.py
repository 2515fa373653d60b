"""Slices chosen by their place or by chance, without comparing any: all, every n-th, every so many mm, at random."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.selection import evenly, every_mm, every_nth, target_count

# Which amounts each method takes.
AMOUNTS = {"all": (), "every_n": ("fraction", "step", "step_mm", "like"), "random": ("fraction", "like")}
DEFAULT_FRACTION = 0.1  # the paper's Evaluation B, which compares all methods at a tenth


def check_places(
    method: str,
    fraction: float | None,
    step: int | None,
    step_mm: float | None,
    offset: float,
    like: str | None,
    seed: int,
) -> dict[str, Any]:
    """The checked amount of a method that compares nothing, as fields of its target.

    Raises:
        UserError: a value is out of range, or values exclude each other.
    """
    if method == "all":
        return {}
    if fraction is None and step is None and step_mm is None and like is None:
        fraction = DEFAULT_FRACTION
    if method == "random":
        if seed < 0 or not float(seed).is_integer():
            raise UserError(f"expected a seed of 0 or more, found {seed:g}; give another")
        return {"fraction": fraction, "like": like, "seed": int(seed)}
    if step is not None and not (step >= 1 and float(step).is_integer()):
        raise UserError(f"expected a step of at least 1 slice, found {step:g}")
    if step_mm is not None and not 0 < step_mm < math.inf:
        raise UserError(f"expected a finite step above 0 mm, found {step_mm:g}")
    if offset and step is None and step_mm is None:
        raise UserError(f"an offset goes with a step, found none and the offset {offset:g}: drop it")
    if not 0 <= offset < (step or step_mm or 1) or (step is not None and not float(offset).is_integer()):
        raise UserError(f"expected an offset from 0 to below the step, found {offset:g}")
    whole = None if step is None else int(step)
    return {"fraction": fraction, "step": whole, "step_mm": step_mm, "offset": offset, "like": like}


def choose_places(
    method: str,
    positions_mm: NDArray[np.float64],
    *,
    fraction: float | None = None,
    step: int | None = None,
    step_mm: float | None = None,
    offset: float = 0,
    seed: int = 0,
    hashes: NDArray[np.uint64] | None = None,
    count: int | None = None,
) -> NDArray[np.bool_]:
    """Which of the slices (n,) that can be kept a method keeps that compares nothing.

    Args:
        method: `all`, `every_n` or `random`.
        positions_mm: (n,) places along the slice axis.
        fraction: as all up to `seed` a field of the target.
        step: keep every step-th slice.
        step_mm: keep a slice every so many mm.
        offset: the first slice to keep, as an index or in mm.
        seed: of the draw.
        hashes: (n,) difference hashes, which tell one volume from another: `random` draws by them and by its seed, so
            that a volume's draw does not depend on the others.
        count: number of slices to keep, where the target is like another selection.
    """
    n = len(positions_mm)
    if method == "all":
        return np.ones(n, dtype=bool)
    if step is not None:
        return every_nth(n, step, offset=int(offset))
    if step_mm is not None:
        order = np.argsort(positions_mm, kind="stable")  # as released, slices may run from head to feet
        kept = np.zeros(n, dtype=bool)
        kept[order] = every_mm(positions_mm[order], step_mm, offset_mm=offset)
        return kept
    if count is None:
        assert fraction is not None
        count = target_count(n, fraction)
    if method == "every_n":
        return evenly(n, count)
    assert hashes is not None
    volume = zlib.crc32(hashes.astype("<u8").tobytes())
    kept = np.zeros(n, dtype=bool)
    kept[np.random.default_rng((seed, volume)).permutation(n)[:count]] = True
    return kept
