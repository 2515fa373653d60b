"""A momentum encoder: a copy of a network that follows it slowly (MoCo, arXiv 1911.05722, Section 3.2; BYOL)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from ignite.engine import Engine, Events
from torch import nn

from lessismore_transforms.errors import UserError

Module = TypeVar("Module", bound=nn.Module)


def momentum_copy(online: Module) -> Module:
    """A copy of a network that gradients do not reach."""
    return copy.deepcopy(online).requires_grad_(False)


@torch.no_grad()
def update_copy(target: nn.Module, online: nn.Module, momentum: float) -> None:
    """Move each parameter of a copy, in place: target <- momentum * target + (1 - momentum) * online (Equation 2).

    Buffers stay: the batch norms of the copy keep statistics of what the copy itself has seen.

    Args:
        target: a copy by `momentum_copy`.
        online: the network that was copied, or modules with the same parameters in the same order.
        momentum: 0 to 1.
    """
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), 1 - momentum)


def cosine_momentum(iteration: int, *, start: float, total: int, clamp: bool = True) -> float:
    """The momentum of an iteration: it rises from `start` to 1 by half a cosine (BYOL, arXiv 2006.07733, Section 3.3).

    Args:
        iteration: counted from 0.
        start: momentum of iteration 0, 0.996 in BYOL.
        total: iterations of the training; 1 is reached right after the last one.
        clamp: stay at 1 beyond `total`; without it the momentum swings, as in the released BYOL code.
    """
    progress = iteration / total
    return 1 - (1 - start) * (math.cos(math.pi * (min(1.0, progress) if clamp else progress)) + 1) / 2


class MomentumUpdate:
    """Handler: move a momentum encoder before the forward pass of each step of the optimiser.

    Iterations that only accumulate gradients do not move it.

    Args:
        update: function of the momentum that moves the encoder.
        momentum: of every step or, with `total`, of the first one.
        total: iterations of the training, over which the momentum rises to 1 by `cosine_momentum`; with None it stays.
        clamp: as of `cosine_momentum`.

    Raises:
        UserError: the momentum is not within 0 and 1.
    """

    def __init__(
        self, update: Callable[[float], object], momentum: float, *, total: int | None = None, clamp: bool = True
    ) -> None:
        if not 0 <= momentum <= 1:
            raise UserError(f"expected a momentum from 0 to 1, found {momentum}; 0.999 is usual")
        self.update, self.momentum, self.total, self.clamp = update, momentum, total, clamp

    def attach(self, engine: Engine) -> None:
        """Follow an engine of MONAI, before each of its iterations."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Move the encoder where a step begins."""
        iteration = engine.state.iteration - 1
        if iteration % engine.accumulation_steps:  # not the first of its step; an epoch holds whole steps
            return
        if self.total is None:
            self.update(self.momentum)
        else:
            self.update(cosine_momentum(iteration, start=self.momentum, total=self.total, clamp=self.clamp))
