"""SparK: the network, its loss and its picture."""

from __future__ import annotations

from .settings import Settings
from .spark import SparK, SparKLoss, draw_mask, patchify, reconstruct, unpatchify

__all__ = ["Settings", "SparK", "SparKLoss", "draw_mask", "patchify", "reconstruct", "unpatchify"]
