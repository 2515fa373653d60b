"""What the build adds: the bundles in the wheel, and a README whose links work outside of a checkout.

`LESSISMORE_FILES_URL` names where the files of the repository are on the web, such as
`https://github.com/OWNER/NAME/raw/HEAD`; a README on a package index then shows its picture and links to the guides.
Without it the picture is left out there, and links to files are plain words: nothing leads nowhere.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

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


class ReadmeForIndex(MetadataHookInterface):
    """Gives the package the README as an index can show it."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the README of the package."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = outside(text, os.environ.get("LESSISMORE_FILES_URL", ""))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def outside(text: str, url: str) -> str:
    """A Markdown text whose relative links and pictures lead to files below a URL; without one they are left out."""
    link = r"\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)"
    if url:
        return re.sub(link, rf"[\1]({url.rstrip('/')}/\2)", text)
    return re.sub(link, r"\1", re.sub(rf"!{link}\n\n?", "", text))
