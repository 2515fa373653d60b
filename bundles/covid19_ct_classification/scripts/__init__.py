"""COVID-CT: its pictures and official lists."""

from __future__ import annotations

from .examples import listing

__all__ = ["listing"]
