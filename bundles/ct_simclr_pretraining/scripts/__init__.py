"""SimCLR and DCLW: the network, the losses, and the settings."""

from __future__ import annotations

from .settings import Settings
from .simclr import DCLW, NTXent, SimCLR, chance_loss, similarities

__all__ = ["DCLW", "NTXent", "Settings", "SimCLR", "chance_loss", "similarities"]
