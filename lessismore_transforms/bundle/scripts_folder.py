"""The package `scripts` of a bundle: each has one, and one process may run several bundles."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def use_scripts(root: Path) -> None:
    """Make `scripts` the package of this bundle, whichever bundle had it before.

    MONAI puts a bundle's folder on the path when it runs, which is too late for settings and networks that are asked
    for before, and does not help where `scripts` of another bundle was imported.

    Args:
        root: folder of the bundle; without a folder `scripts` in it nothing happens.
    """
    folder = (root / "scripts").resolve()
    if not (folder / "__init__.py").is_file():
        return
    loaded = sys.modules.get("scripts")
    if loaded is not None and folder in [Path(place).resolve() for place in loaded.__path__]:
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "scripts"]:
        del sys.modules[name]
    first = str(folder.parent)
    sys.path[:] = [place for place in sys.path if place != first]
    sys.path.insert(1, first)
    importlib.invalidate_caches()
