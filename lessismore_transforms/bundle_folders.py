"""Where the MONAI bundles are that came with this package: in the wheel, or in the checkout."""

from __future__ import annotations

from pathlib import Path

from lessismore_transforms.errors import UserError

_PACKAGE = Path(__file__).resolve().parent
_SHIPPED = _PACKAGE / "shipped_bundles"


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
