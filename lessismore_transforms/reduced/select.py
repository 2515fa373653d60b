"""Another selection of a finished output folder, from its ranking alone."""

from __future__ import annotations

from pathlib import Path

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduced.across_volumes import select_across
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.selection import Selection, check_name
from lessismore_transforms.reduced.store import stored_rows
from lessismore_transforms.reduction.target import Target


def select(output_dir: str | Path, target: Target, name: str, *, order: str = "thinnest") -> tuple[Selection, int]:
    """Write the selection `name` of a finished output; no image is read.

    Args:
        output_dir: output folder of `reduce`.
        target: what to keep.
        name: of the selection.
        order: of the volumes, where slices are compared across them; see `across.select_across`.

    Returns:
        The selection, and how many of its slices the store lacks.

    Raises:
        ManifestError: the output is incomplete or damaged.
        UserError: the name is that of the run's own selection, or holds odd characters.
    """
    output_dir = Path(output_dir)
    if name == target.like:
        raise UserError(f"expected the name of another selection to be like, found that {name!r} is like itself")
    if check_name(name) == "default":
        raise UserError("the selection 'default' is the one of the run itself: choose another name")
    manifest = Manifest.read(output_dir)
    if target.scope == "volume":
        selection = manifest.select(target)
    else:
        assert target.threshold is not None
        (selection,) = select_across([manifest], target.threshold, scope=target.scope, order=order)
    selection.write(output_dir, name)
    rows = stored_rows(manifest)
    return selection, sum(kept not in rows for kept in selection.kept_ids)
