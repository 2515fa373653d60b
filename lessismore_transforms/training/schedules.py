"""Learning rate and weight decay as functions of the iteration, so that a resumed run needs no state."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ignite.engine import Engine, Events
from torch.optim import Optimizer

from lessismore_transforms.errors import UserError


def warmup_cosine(
    iteration: int,
    *,
    total: int,
    warmup: int = 0,
    start: float = 0.0,
    end: float = 0.0,
    every: int = 1,
    clamp: bool = True,
) -> float:
    """The factor of an iteration: it rises linearly from `start` to 1, then follows half a cosine from 1 to `end`.

    Args:
        iteration: counted from 0.
        total: iterations of the training; the end is reached right after the last one.
        warmup: iterations of the linear part.
        start: factor of iteration 0 where there is a warm-up.
        end: last factor.
        every: number of iterations for which the factor stays the same; those of an epoch for a schedule by epochs.
        clamp: stay at `end` beyond `total`; without it the cosine goes on up and down, as in the released SwAV code.

    Raises:
        UserError: the warm-up takes the whole training.
    """
    if warmup >= total:
        raise UserError(
            f"expected a warm-up shorter than the training, found {warmup} of {total} iterations; "
            "give fewer warmup_epochs, or train longer"
        )
    iteration = iteration // every * every
    if iteration < warmup:
        return _rise(iteration, warmup, start)
    progress = (iteration - warmup) / (total - warmup)
    progress = min(1.0, progress) if clamp else progress
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * progress))


def stepped(
    iteration: int, *, milestones: Sequence[int], factor: float = 0.1, warmup: int = 0, start: float = 0.0
) -> float:
    """The factor of an iteration: it rises linearly from `start` to 1, then falls by `factor` at each milestone.

    Args:
        iteration: counted from 0.
        milestones: iterations from which on it is `factor` times what it was; none keeps it at 1.
        factor: at each of them.
        warmup: iterations of the linear part.
        start: factor of iteration 0 where there is a warm-up.
    """
    fallen = factor ** sum(iteration >= milestone for milestone in milestones)
    return fallen * (_rise(iteration, warmup, start) if iteration < warmup else 1.0)


def _rise(iteration: int, warmup: int, start: float) -> float:
    return start + (1 - start) * iteration / warmup


class Schedule:
    """Set `key` of every parameter group to its first value times a factor, before each iteration.

    Args:
        optimizer: the values of its groups at this moment are multiplied by the factor, so that 0 stays 0.
        factor: of the iteration, counted from 0.
        key: such as lr or weight_decay. The learning rate of a group that is marked `constant` stays as it is.
    """

    def __init__(self, optimizer: Optimizer, factor: Callable[[int], float], key: str = "lr") -> None:
        self.optimizer, self.factor, self.key = optimizer, factor, key
        self._first = [group[key] for group in optimizer.param_groups]
        factor(0)  # an impossible schedule is refused now

    def attach(self, engine: Engine) -> None:
        """Follow an engine."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Set the values for the iteration that begins."""
        factor = self.factor(engine.state.iteration - 1)
        for group, first in zip(self.optimizer.param_groups, self._first, strict=True):
            if self.key != "lr" or not group.get("constant"):
                group[self.key] = first * factor
