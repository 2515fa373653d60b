"""Gradients of bounded length."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine
from monai.engines import IterationEvents
from torch import nn

from lessismore_transforms.errors import UserError


class ClipGradients:
    """Scale the gradients of a network down to a norm before each step.

    Attach it after the handlers that drop gradients.

    Args:
        network: the network that is trained.
        norm: largest norm of all gradients together.

    Raises:
        UserError: the norm is not positive.
    """

    def __init__(self, network: nn.Module, norm: float) -> None:
        if not isinstance(norm, (int, float)) or not norm > 0:
            raise UserError(f"expected a clip_norm above 0, found {norm!r}; leave it out for none")
        self.network, self.norm = network, float(norm)

    def attach(self, engine: Engine) -> None:
        """Follow an engine of MONAI."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Clip before a step of the optimiser, not while gradients are still accumulated."""
        if engine.state.iteration % engine.accumulation_steps:
            return
        if engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.norm)
