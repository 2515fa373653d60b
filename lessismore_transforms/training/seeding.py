"""Random numbers as a function of seed, process and iteration, so that any batch of a training can be replayed."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from ignite.engine import Engine, Events


def seed_for(*parts: int | str) -> int:
    """A 63-bit seed made of the parts; another part gives another seed."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class SeedIterations:
    """Seed torch's global generators from (seed, rank, iteration) before every iteration.

    Masks, dropped paths and shuffles inside a network are then the same in a resumed run as in an uninterrupted one.
    """

    def __init__(self, seed: int = 0, rank: int = 0) -> None:
        self.seed, self.rank = seed, rank

    def attach(self, engine: Engine) -> None:
        """Follow an engine."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Seed the generators for the iteration that begins."""
        torch.manual_seed(seed_for("iteration", self.seed, self.rank, engine.state.iteration))
