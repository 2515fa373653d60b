"""The files of a finished analysis, by name, and its numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lessismore_transforms.errors import UserError, reading

ANALYSIS, PAGE, MAP, OVERLAYS = "analysis.json", "analysis.html", "map.csv", "attention"
FILES = (ANALYSIS, PAGE, MAP, "cka_*.npy", "cka_*.json", f"{OVERLAYS}/*.png")  # all of them, as patterns


def cka_file(number: int) -> str:
    """The similarities of the layers of a pair."""
    return f"cka_{number:02d}.npy"


def difference_file(number: int) -> str:
    """The similarities of a pair less those of the first one."""
    return f"cka_difference_{number:02d}.npy"


def overlay_file(number: int) -> str:
    """A picture with the attention of each network."""
    return f"{number:02d}.png"


def read_analysis(folder: Path) -> dict[str, Any]:
    """The numbers of an analysis.

    Raises:
        UserError: the folder holds none, or damaged ones.
    """
    path = folder / ANALYSIS
    if not path.is_file():
        raise UserError(f"expected the folder of an analysis with {ANALYSIS}, found {folder}: fix the path")
    with reading(path):
        text = path.read_text(encoding="utf-8")
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"expected JSON in {path}, found something else: analyse again") from error
    if not isinstance(found, dict) or found.get("format") != 1:
        raise UserError(f"expected an analysis of format 1 in {path}, found another one: analyse again")
    return found
