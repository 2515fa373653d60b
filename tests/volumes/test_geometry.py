from __future__ import annotations

import itertools

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from lessismore_transforms.volumes.geometry import (
    canonical_affine,
    canonical_orientation,
    slice_normal,
    slice_positions,
)

SPACING = (0.7, 0.8, 2.5)
# What the canonical stack (column, row, slice) looks like to nibabel, by the direction in which slices are stored.
CANONICAL = {"S": "LPS", "I": "LPS", "A": "LIP", "P": "LIP", "R": "PIL", "L": "PIL"}
AXCODES = ["".join(sign) for axes in itertools.permutations(["RL", "AP", "SI"]) for sign in itertools.product(*axes)]


def stored(axcodes: str) -> tuple[np.ndarray, np.ndarray]:
    """An array with the given axes and its affine, always the same scan: 5 x 6 x 7 voxels in RAS."""
    scan = np.arange(5 * 6 * 7, dtype=np.int32).reshape(5, 6, 7)
    affine = np.array([[0.7, 0, 0, -3], [0, 0.8, 0, 11], [0, 0, 2.5, -40], [0, 0, 0, 1]])
    to_stored = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axcodes))
    return nibabel.apply_orientation(scan, to_stored), affine @ inv_ornt_aff(to_stored, scan.shape)


@pytest.mark.parametrize("axcodes", AXCODES)
def test_every_stored_order_becomes_the_canonical_one(axcodes: str) -> None:
    array, affine = stored(axcodes)
    orientation = canonical_orientation(affine)
    stack = np.empty((array.shape[2], *orientation.apply(array[:, :, 0].T).shape), dtype=int)
    for k in range(array.shape[2]):
        stack[orientation.index(k, array.shape[2])] = orientation.apply(array[:, :, k].T)

    # Oracle: nibabel's own reorientation of the same image.
    wanted = CANONICAL[axcodes[2]]
    expected = nibabel.Nifti1Image(array, affine).as_reoriented(
        ornt_transform(nibabel.io_orientation(affine), axcodes2ornt(wanted))
    )
    np.testing.assert_array_equal(stack, np.asarray(expected.dataobj).T)
    np.testing.assert_allclose(canonical_affine(affine, array.shape, orientation), expected.affine)
    assert (
        orientation.plane
        == {"S": "axial", "A": "coronal", "R": "sagittal"}[axcodes[2].translate(str.maketrans("IPL", "SAR"))]
    )


@pytest.mark.parametrize(("axcodes", "first", "step"), [("LPS", -40, 2.5), ("RAI", -40, 2.5), ("RSA", -15, 0.8)])
def test_positions_run_with_the_canonical_order(axcodes: str, first: float, step: float) -> None:
    # Axial slices begin at the feet; coronal ones at the front: y = 11 + 5 * 0.8 = 15 mm anterior, -15 in LPS.
    array, affine = stored(axcodes)
    orientation = canonical_orientation(affine)
    positions = slice_positions(canonical_affine(affine, array.shape, orientation), 3)
    np.testing.assert_allclose(positions, [first, first + step, first + 2 * step])


def test_oblique_slices_go_to_the_nearest_plane_and_keep_their_own_normal() -> None:
    angle = np.radians(20)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-0.8, -0.8, 3.0])
    assert canonical_orientation(affine).plane == "axial"
    np.testing.assert_allclose(slice_normal(affine), [0, np.sin(angle), np.cos(angle)], atol=1e-12)
    np.testing.assert_allclose(np.diff(slice_positions(affine, 4)), 3.0)


def test_a_broken_affine_is_refused() -> None:
    with pytest.raises(ValueError, match="finite 4 x 4 affine"):
        canonical_orientation(np.full((4, 4), np.nan))
    with pytest.raises(ValueError, match="collapses an axis"):
        canonical_orientation(np.diag([1.0, 1.0, 0.0, 1.0]))
