"""The files of a finished analysis, by name."""

from __future__ import annotations

ANALYSIS, PAGE, MAP, OVERLAYS = "analysis.json", "analysis.html", "map.csv", "attention"


def cka_file(number: int) -> str:
    """The similarities of the layers of a pair."""
    return f"cka_{number:02d}.npy"


def difference_file(number: int) -> str:
    """The similarities of a pair less those of the first one."""
    return f"cka_difference_{number:02d}.npy"


def overlay_file(number: int) -> str:
    """A picture with the attention of each network."""
    return f"{number:02d}.png"
