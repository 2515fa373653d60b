"""What a training computes, as plain values by name: a run goes on only where all of them are as they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lessismore_transforms.options import names, plain_values
from lessismore_transforms.pretraining.views import Views
from lessismore_transforms.training.identity import parts_identity
from lessismore_transforms.training.plan import Plan

_POINTS = 1000  # of a schedule; more would take seconds of a long training


def training_identity(
    settings: Any,
    *,
    plan: Plan,
    views: Views,
    optimizer: Optimizer,
    schedule: Callable[[int], float],
    loss_function: Any,
    network: nn.Module,
    handlers: Sequence[Any] = (),
) -> dict[str, Any]:
    """The settings that decide a training, then what its parts really hold, wherever they were configured.

    Args:
        settings: a dataclass of options; those that decide the result count.
        plan: length of the training.
        views: what is made of a slice.
        optimizer: with the values that the configuration gave.
        schedule: factor of the learning rate, of the iteration counted from 0.
        loss_function: of the method.
        network: as it is before anything wraps it.
        handlers: of the method; those of MONAI and Ignite do not count.
    """
    given = plain_values(settings)
    parts: dict[str, Any] = {name: given[name] for name in names(settings, "identity") if name in given}
    parts |= {"views mean": list(views.mean), "views std": list(views.std)}
    for number, kind in enumerate(views.kinds, start=1):
        parts |= {f"view {number} {name}": value for name, value in asdict(kind).items()}
    points = sorted({number * plan.iterations // _POINTS for number in range(_POINTS)})
    parts |= parts_identity(
        points=points,
        optimizer=optimizer,
        schedule=schedule,
        loss_function=loss_function,
        network=network,
        handlers=handlers,
    )
    return {name: list(value) if isinstance(value, tuple) else value for name, value in parts.items()}
