"""Order and orientation of a stack of slices, defined once by whole-axis flips and transposes.

Which slice survives a reduction depends on order and orientation, so every route (DICOM, files, MONAI tensors)
goes through `canonical_orientation`. Nothing is ever resampled.

=========  ==================  ==========================  ===================
plane      slices              rows                        columns
=========  ==================  ==========================  ===================
axial      feet to head        to posterior                to the patient's left
coronal    to posterior        to the feet                 to the patient's left
sagittal   to the left         to the feet                 to posterior
=========  ==================  ==========================  ===================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.errors import UserError

Array = NDArray[Any]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

# Slice axis in the world (0 left-right, 1 front-back, 2 feet-head): plane, then (world axis, direction in RAS) of
# columns, rows and slices.
_PLANES: dict[int, tuple[str, tuple[tuple[int, int], ...]]] = {
    2: ("axial", ((0, -1), (1, -1), (2, +1))),
    1: ("coronal", ((0, -1), (2, -1), (1, -1))),
    0: ("sagittal", ((1, -1), (2, -1), (0, -1))),
}


@dataclass(frozen=True, slots=True)
class Orientation:
    """The flips and the transpose that take stored slices to canonical ones.

    The transpose of a slice comes first, the flips are those of the result.
    """

    plane: str = "axial"
    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False
    flip_slices: bool = False

    def apply(self, image: Array) -> Array:
        """View of one stored slice (rows, columns) in canonical orientation; no copy."""
        view = image.T if self.transpose else image
        return view[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def index(self, stored: int, count: int) -> int:
        """Canonical index of the slice stored at position `stored` of `count`."""
        return count - 1 - stored if self.flip_slices else stored


def canonical_orientation(affine: Array) -> Orientation:
    """Orientation of a grid stored as (column, row, slice) with a RAS+ affine (4, 4) in mm.

    Axes are named by `nibabel.io_orientation`, so oblique grids go to the nearest plane.

    Raises:
        UserError: the affine is not finite or collapses an axis.
    """
    from nibabel.orientations import io_orientation  # which pictures need not wait for

    affine = np.asarray(affine, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise UserError(f"expected a finite 4 x 4 affine, found {affine.tolist()}: repair the image's geometry")
    axes = io_orientation(affine)
    if np.isnan(axes).any():
        raise UserError(f"the affine {affine.tolist()} collapses an axis: repair the image's geometry")
    (column_axis, column_sign), (_, row_sign), (slice_axis, slice_sign) = axes.astype(int).tolist()
    plane, (columns, rows, slices) = _PLANES[slice_axis]
    transpose = column_axis != columns[0]
    if transpose:
        column_sign, row_sign = row_sign, column_sign
    return Orientation(
        plane=plane,
        transpose=transpose,
        flip_rows=row_sign != rows[1],
        flip_columns=column_sign != columns[1],
        flip_slices=slice_sign != slices[1],
    )


def canonical_affine(affine: Array, stored_shape: tuple[int, int, int], orientation: Orientation) -> Array:
    """RAS+ affine (4, 4) of the canonical grid (column, row, slice).

    Args:
        affine: RAS+ affine of the stored grid (column, row, slice).
        stored_shape: number of stored (columns, rows, slices).
        orientation: as `canonical_orientation` gives it.
    """
    affine = np.asarray(affine, dtype=np.float64).copy()
    shape = list(stored_shape)
    if orientation.transpose:
        affine[:, [0, 1]] = affine[:, [1, 0]]
        shape[:2] = shape[1::-1]
    for axis, flip in enumerate((orientation.flip_columns, orientation.flip_rows, orientation.flip_slices)):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (shape[axis] - 1)
            affine[:3, axis] *= -1
    return affine


def slice_normal(affine: Array) -> Array:
    """Unit normal (3,) of the slices in LPS+, pointing along the larger LPS coordinate.

    Toward the head for axial, posterior for coronal, left for sagittal slices: the canonical order in each plane.
    """
    lps = LPS_TO_RAS @ np.asarray(affine, dtype=np.float64)
    normal = np.cross(lps[:3, 0], lps[:3, 1])
    normal /= np.linalg.norm(normal)
    return np.asarray(normal * np.sign(normal[np.abs(normal).argmax()]))


def slice_positions(affine: Array, count: int) -> Array:
    """Position in mm (count,) of each slice of a grid on its slice normal."""
    lps = LPS_TO_RAS @ np.asarray(affine, dtype=np.float64)
    origins = lps[:3, 3] + np.arange(count)[:, None] * lps[:3, 2]
    return np.asarray(origins @ slice_normal(affine))
