"""SparK: the network, its loss, its parameter groups and its picture."""

from __future__ import annotations

from .settings import Settings
from .spark import SparK, SparKLoss, draw_mask, parameter_groups, patchify, reconstruct, unpatchify

__all__ = ["Settings", "SparK", "SparKLoss", "draw_mask", "parameter_groups", "patchify", "reconstruct", "unpatchify"]
