"""Let the bundles travel in the wheel: `lessismore bundles` tells where they are, and copies them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PARTS = ("LICENSE", "configs", "docs", "scripts")  # of a bundle; weights and runs in its folder are left behind


class BundlesInWheel(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the bundles' own files to a wheel; an editable installation finds them in the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Tell the builder what to take from where."""
        if version == "editable":
            return
        for bundle in sorted(Path(self.root, "bundles").glob("*/")):
            for path in (bundle / part for part in PARTS):
                if path.exists():
                    inside = f"lessismore_transforms/shipped_bundles/{bundle.name}/{path.name}"
                    build_data["force_include"][str(path)] = inside
