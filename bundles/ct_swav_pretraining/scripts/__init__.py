"""SwAV: the network, its loss, and the handlers around a training step."""

from __future__ import annotations

from .swav import FreezePrototypes, StartQueue, SwAV, SwAVLoss, sinkhorn

__all__ = ["FreezePrototypes", "StartQueue", "SwAV", "SwAVLoss", "sinkhorn"]
