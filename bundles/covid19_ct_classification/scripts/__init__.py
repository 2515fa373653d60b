"""COVID-CT: its pictures and official lists."""

from __future__ import annotations

from .listing import listing

__all__ = ["listing"]
