"""SimSiam: the network, its loss, and the settings."""

from __future__ import annotations

from .settings import Settings
from .simsiam import LOWEST_LOSS, SimSiam, SimSiamLoss

__all__ = ["LOWEST_LOSS", "Settings", "SimSiam", "SimSiamLoss"]
