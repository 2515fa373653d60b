"""Where the MONAI bundles are that came with this package: in the wheel, or in the checkout."""

from __future__ import annotations

import shutil
from pathlib import Path

from lessismore_transforms.errors import UserError

_PACKAGE = Path(__file__).resolve().parent
_SHIPPED = _PACKAGE / "shipped_bundles"
_PARTS = ("LICENSE", "configs", "docs", "scripts")


def shipped_bundles() -> dict[str, Path]:
    """The folders of the bundles by name.

    Raises:
        UserError: there are none, as in a package that was built without them.
    """
    for place in (_SHIPPED, _PACKAGE.parent / "bundles"):
        if found := {path.parents[1].name: path.parents[1] for path in sorted(place.glob("*/configs/metadata.json"))}:
            return found
    raise UserError(f"expected the bundles in {_SHIPPED}, found none: install the package again")


def bundle_folder(name: str) -> Path:
    """The folder of a bundle.

    Raises:
        UserError: there is no bundle of that name.
    """
    known = shipped_bundles()
    if name not in known:
        raise UserError(f"expected bundles out of {', '.join(known)}, found {name!r}: name some of these")
    return known[name]


def copy_bundle(source: Path, folder: Path, *ignored: str) -> None:
    """Copy what makes a bundle, and nothing else that lies in its folder, such as runs, results and weights.

    Args:
        source: folder of the bundle.
        folder: where the copy goes; made if absent.
        ignored: patterns of names that are left out.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in filter(Path.exists, (source / name for name in _PARTS)):
        if part.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", *ignored)
            shutil.copytree(part, folder / part.name, ignore=ignore, dirs_exist_ok=True)
        else:
            shutil.copyfile(part, folder / part.name)
