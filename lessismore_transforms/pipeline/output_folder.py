"""The folders of an output folder, made before a run and swept of what killed processes leave."""

from __future__ import annotations

from pathlib import Path

from lessismore_transforms.atomic import remove_temporaries
from lessismore_transforms.reduced.manifest import DISTANCES
from lessismore_transforms.reduced.store import STORE, THUMBNAILS

PARTS = "parts"
RUNNING = f"{PARTS}/settings.json"  # while this stands, the parts count and not the manifest


def make_folders(output_dir: Path, *, distances: bool) -> None:
    """Make the folders that tasks write into."""
    for folder in (THUMBNAILS, PARTS, *([DISTANCES] if distances else [])):
        (output_dir / folder).mkdir(parents=True, exist_ok=True)


def sweep(output_dir: Path) -> None:
    """Delete what killed processes left half written; only while no task is under way."""
    for folder in (".", "selections", PARTS, STORE, THUMBNAILS, DISTANCES):
        remove_temporaries(output_dir / folder)
