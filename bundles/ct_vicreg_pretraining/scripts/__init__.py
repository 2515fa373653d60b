"""VICReg: the network, its loss with its terms, and the settings."""

from __future__ import annotations

from .settings import Settings
from .vicreg import Terms, VICReg, VICRegLoss, vicreg_terms

__all__ = ["Settings", "Terms", "VICReg", "VICRegLoss", "vicreg_terms"]
