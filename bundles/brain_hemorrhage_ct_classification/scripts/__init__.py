"""Head CT with and without hemorrhage: pictures, labels and folds."""

from __future__ import annotations

from .examples import listing
from .settings import Settings

__all__ = ["Settings", "listing"]
