"""SwAV: the network, its loss, the handlers around a training step, and its settings."""

from __future__ import annotations

from .settings import Settings
from .swav import FreezePrototypes, StartQueue, SwAV, SwAVLoss, chance_loss, sinkhorn

__all__ = ["FreezePrototypes", "Settings", "StartQueue", "SwAV", "SwAVLoss", "chance_loss", "sinkhorn"]
