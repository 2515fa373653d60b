"""Head CT with and without hemorrhage: pictures, labels and folds."""

from __future__ import annotations

from .listing import listing

__all__ = ["listing"]
