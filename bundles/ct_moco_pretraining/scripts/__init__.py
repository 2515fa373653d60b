"""MoCo v2: the network, its loss, how long its queue is, and its settings."""

from __future__ import annotations

from .moco import InfoNCE, MoCo, chance_loss, default_queue_length, moco_logits
from .settings import Settings

__all__ = ["InfoNCE", "MoCo", "Settings", "chance_loss", "default_queue_length", "moco_logits"]
