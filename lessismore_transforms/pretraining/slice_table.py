"""What the manifests tell of the slices that a data set trains on: hash, volume, patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduced.manifest import read_reduction

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("slice_id", "volume", "patient", "hash", "position_mm", "height", "width")


def kept_slices(
    outputs: str | Path | Sequence[str | Path], selection: str = "default", *, removed: bool = False
) -> pd.DataFrame:
    """What the manifests say of each item of a `SliceSelectionDataset` with the same arguments, in its order.

    Raises:
        ManifestError: an output is incomplete or damaged, or has no such selection.
    """
    import pandas as pd

    tables = []
    for folder in [outputs] if isinstance(outputs, (str, Path)) else outputs:
        manifest, chosen = read_reduction(folder, selection)
        tables.append(manifest.slices.loc[chosen.rows(removed=removed), list(_COLUMNS)])
    return pd.concat(tables, ignore_index=True)


def slice_table(
    outputs: str | Path | Sequence[str | Path], selection: str = "default", *, removed: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hash and volume of each item of a `SliceSelectionDataset` with the same arguments, in its order.

    Returns:
        The bits of the difference hashes as int64 (n,), and the volumes numbered from 0, int64 (n,): the same volume
        in two outputs has one number.

    Raises:
        ManifestError: an output is incomplete or damaged, or has no such selection.
    """
    import pandas as pd

    slices = kept_slices(outputs, selection, removed=removed)
    hashes = slices["hash"].to_numpy(dtype=np.uint64).view(np.int64)
    return torch.from_numpy(hashes.copy()), torch.from_numpy(pd.factorize(slices["volume"])[0].astype(np.int64))


def smallest_slice(
    outputs: str | Path | Sequence[str | Path], selection: str = "default", *, removed: bool = False
) -> tuple[int, int]:
    """Rows and columns of the slice with the fewest pixels in a `SliceSelectionDataset` with the same arguments.

    Raises:
        ManifestError: an output is incomplete or damaged, or has no such selection.
        UserError: the selection keeps nothing.
    """
    slices = kept_slices(outputs, selection, removed=removed)
    if slices.empty:
        raise UserError(f"expected slices in the selection {selection!r} of {outputs}, found none; keep more")
    height, width = slices[["height", "width"]].iloc[(slices["height"] * slices["width"]).argmin()]
    return int(height), int(width)
