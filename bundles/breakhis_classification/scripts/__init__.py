"""BreaKHis: its pictures, labels and splits."""

from __future__ import annotations

from .listing import listing
from .settings import Settings

__all__ = ["Settings", "listing"]
