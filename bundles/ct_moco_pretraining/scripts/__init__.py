"""MoCo v2: the network, its loss, and how long its queue is."""

from __future__ import annotations

from .moco import InfoNCE, MoCo, default_queue_length, moco_logits

__all__ = ["InfoNCE", "MoCo", "default_queue_length", "moco_logits"]
