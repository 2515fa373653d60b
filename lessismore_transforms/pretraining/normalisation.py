"""What views are normalised by: mean and standard deviation of the stored slices that a training reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lessismore_transforms.errors import ManifestError
from lessismore_transforms.reduced.grey_statistics import pooled
from lessismore_transforms.reduced.manifest import Manifest


def grey_mean_std(outputs: str | Path | Sequence[str | Path]) -> tuple[float, float]:
    """Mean and standard deviation of the grey values (0..1) in the stores of outputs of `reduce`, pooled by pixels.

    They are those of the stored slices of each output's own selection, whichever selection is trained on.

    Raises:
        ManifestError: an output is incomplete or damaged, or does not tell.
    """
    found = []
    for folder in [outputs] if isinstance(outputs, (str, Path)) else outputs:
        statistics = Manifest.read(folder).info.get("store")
        if not statistics or not statistics["std"] > 0:
            raise ManifestError(
                f"{Path(folder) / 'manifest.json'} tells no mean and standard deviation of stored slices: reduce again "
                "with this version, or give mean and std"
            )
        found.append(statistics)
    return pooled(found)
