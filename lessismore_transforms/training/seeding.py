"""Random numbers as a function of seed, process and iteration, so that any batch of a training can be replayed."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from ignite.engine import Engine, Events

from lessismore_transforms.errors import UserError


def seed_for(*parts: int | str) -> int:
    """A 63-bit seed made of the parts; another part gives another seed."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def run_seed(seed: int, run_index: int) -> int:
    """The seed of one of several runs that differ by chance only.

    Raises:
        UserError: a number is negative, or there are more than 1000 runs.
    """
    if seed < 0 or not 0 <= run_index < 1000:
        raise UserError(
            f"expected a seed of 0 or more and a run_index from 0 to 999, found {seed} and {run_index}; give others"
        )
    return 1000 * seed + run_index


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
