"""BYOL: the network, its loss, and the settings."""

from __future__ import annotations

from .byol import BYOL, LOWEST_LOSS, BYOLLoss
from .settings import Settings

__all__ = ["BYOL", "LOWEST_LOSS", "BYOLLoss", "Settings"]
