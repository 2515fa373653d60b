"""OrganSMNIST: its pictures, labels and splits."""

from __future__ import annotations

from .listing import listing

__all__ = ["listing"]
