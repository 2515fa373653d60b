"""The share of a CT slice that is patient, to leave out slices of air, table or nothing.

On a grid of about 4 mm, cells denser than -500 HU are solid. Solid parts that are nowhere 28 mm thick are table, tube
or blanket and are removed. Everything that the remaining parts enclose (lungs, bowel gas) belongs to the patient.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.compiled import compiled

Mask = npt.NDArray[np.bool_]

NO_BODY = 0.001  # a share below this is no patient; the smallest piece that counts is 0.0015 of an 800 mm field of view
_SOLID_HU = -500.0  # halfway between air and water
_CELL_MM = 4.0
_SHELL_MM = 12.0  # a table's shell is thinner, the chest wall over the lungs is not
_PATIENT_MM = 28.0  # the head rest in `chest_dicom` is up to 20 mm thick; most wrists and all ankles hold such a square


def foreground_share(hu: npt.NDArray[Any], spacing_mm: tuple[float, float]) -> float:
    """The share (0..1) of a CT slice that is patient; a share below `NO_BODY` means that there is no patient.

    Measured: number of slices, smallest and largest share (`tests/reduction/test_foreground.py` makes the slices):

    ============================================================  ===  ======  ======
    real, four scans of chest, abdomen and pelvis                 305  0.254   0.696
    phantoms                                                      192  0.343   0.601
    a limb of 48 mm in a field of view of 780 mm                       0.0029
    **NO_BODY**                                                        0.001
    the real ones less the body: table, head rest, blankets        61  0       0
    the phantoms less the body, with noise of 100 HU              192  0       0
    air, padding, blank slices of any value                            0       0
    ============================================================  ===  ======  ======

    So a limb or a tip of less than about 40 mm does not count as patient, nor does a field of view inside one lung. A
    picture without HU (0..255, MR) counts as patient everywhere.

    Args:
        hu: (H, W), in HU, any number type.
        spacing_mm: distance of rows and of columns.

    Raises:
        UserError: the array is not a slice, or a distance is not above 0.
    """
    if hu.ndim != 2 or not hu.size:
        raise UserError(f"expected one slice (rows, columns), found shape {hu.shape}: give slices one by one")
    if not all(0 < mm < math.inf for mm in spacing_mm):
        raise UserError(f"expected the distances of rows and of columns in mm, above 0, found {spacing_mm}")
    steps = [max(1, round(_CELL_MM / mm)) for mm in spacing_mm]
    cell_mm = [step * mm for step, mm in zip(steps, spacing_mm, strict=True)]
    solid = _solid_cells(hu, *steps)
    if solid.all() and hu.min() == hu.max():  # blank, whatever the value
        return 0.0
    body = _flood(_open(solid, cell_mm, _SHELL_MM), _open(solid, cell_mm, _PATIENT_MM))
    border = np.ones_like(body)
    border[1:-1, 1:-1] = False
    return 1.0 - float(_flood(~body, border).mean())


@compiled()
def _solid_cells(hu: npt.NDArray[Any], down: int, across: int) -> Mask:
    """Mask of the cells that are solid in more than half of their down x across pixels (fewer at the edges)."""
    height, width = hu.shape
    solid = np.zeros((-(-height // down), -(-width // across)), np.bool_)
    for i in range(solid.shape[0]):
        bottom = min(height, (i + 1) * down)
        column = np.zeros(width, np.int32)
        for y in range(i * down, bottom):
            for x in range(width):
                column[x] += hu[y, x] > _SOLID_HU
        for j in range(solid.shape[1]):
            right = min(width, (j + 1) * across)
            half = (bottom - i * down) * (right - j * across) // 2
            solid[i, j] = column[j * across : right].sum() > half
    return solid


def _open(cells: Mask, cell_mm: list[float], side_mm: float) -> Mask:
    """The cells that lie in some filled square of so many mm (morphological opening)."""
    height, width = (min(max(1, round(side_mm / mm)), n) for mm, n in zip(cell_mm, cells.shape, strict=True))
    filled = _sums(cells, height, width) == height * width
    return _sums(np.pad(filled, ((height - 1,) * 2, (width - 1,) * 2)), height, width) > 0


def _sums(cells: Mask, height: int, width: int) -> npt.NDArray[np.int32]:
    """The sums over all rectangles of height x width cells."""
    corner = np.zeros((cells.shape[0] + 1, cells.shape[1] + 1), np.int32)
    cells.cumsum(axis=0, dtype=np.int32, out=corner[1:, 1:])
    corner.cumsum(axis=1, out=corner)
    rows = corner[height:] - corner[:-height]
    sums: npt.NDArray[np.int32] = rows[:, width:] - rows[:, :-width]
    return sums


@compiled()
def _flood(allowed: Mask, seeds: Mask) -> Mask:
    """The allowed cells that are seeds or connected with one, by rows and columns."""
    height, width = allowed.shape
    wet = allowed & seeds
    stack = np.empty((height * width, 2), np.int32)
    count = 0
    for y in range(height):
        for x in range(width):
            if wet[y, x]:
                stack[count] = y, x
                count += 1
    while count:
        count -= 1
        row, column = stack[count]
        for down, across in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            y, x = row + down, column + across
            if 0 <= y < height and 0 <= x < width and allowed[y, x] and not wet[y, x]:
                wet[y, x] = True
                stack[count] = y, x
                count += 1
    return wet
