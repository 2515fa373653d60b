"""Chest X-rays of children: pictures, labels and splits."""

from __future__ import annotations

from .examples import listing
from .settings import Settings

__all__ = ["Settings", "listing"]
