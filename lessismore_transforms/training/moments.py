"""When something happens again and again during a training: by epochs of the set, or by shares of the steps."""

from __future__ import annotations

from typing import Any

from ignite.engine import Events

from lessismore_transforms.training.plan import Plan


def every_epochs(epochs: int, plan: Plan | None = None) -> Any:
    """The event that comes every so many epochs.

    Args:
        epochs: between two, 1 or more.
        plan: where it counts steps, the event comes at the end of iterations, see `Plan.interval_of`; without it, and
            where it counts epochs, at the end of epochs.
    """
    if plan is None or not plan.by_steps:
        return Events.EPOCH_COMPLETED(every=epochs)
    return Events.ITERATION_COMPLETED(every=plan.interval_of(epochs))
