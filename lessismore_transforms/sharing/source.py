"""Where the bundles are whose files a shared bundle takes."""

from __future__ import annotations

from pathlib import Path

import lessismore_transforms
from lessismore_transforms.errors import UserError


def bundle_folder(name: str) -> Path:
    """The folder of a bundle of ours.

    Raises:
        UserError: this installation has no such bundle.
    """
    package = Path(lessismore_transforms.__file__).resolve().parent
    for place in (package / "shipped_bundles", package.parent / "bundles"):  # in the wheel, in a checkout
        if (place / name / "configs" / "metadata.json").is_file():
            return place / name
    raise UserError(
        f"expected the bundle {name} in {package.parent / 'bundles'}, found none: share from a checkout of the "
        "project, installed by `pip install -e .`"
    )
