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
    folder = Path(lessismore_transforms.__file__).resolve().parents[1] / "bundles" / name
    if not (folder / "configs" / "metadata.json").is_file():
        raise UserError(
            f"expected the bundle {name} at {folder}, found none: share from a checkout of the project, installed "
            "by `pip install -e .`"
        )
    return folder
