"""What a training computes, as plain values by name: a run goes on only where all of them are as they were."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lessismore_transforms.options import is_plain, names, plain_values
from lessismore_transforms.pretraining.views import Views
from lessismore_transforms.training.plan import Plan

_POINTS = 1000  # of a schedule; more would take seconds of a long training
_FOREIGN = ("monai.", "ignite.")  # their handlers report and save, and may come and go
_OF_THE_STATE = ("training", "queue_started", "call_super_init", "dump_patches")  # of modules, and no settings


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
    parts["optimizer"] = type(optimizer).__name__
    for number, group in enumerate(optimizer.param_groups, start=1):
        parts |= {f"optimizer group {number} {name}": value for name, value in _plain(group)}
    parts["schedule"] = _trace(schedule, plan.iterations)
    for role, part in [("loss", loss_function), ("network", network), *(("handler", each) for each in handlers)]:
        made_by = type(part)
        if made_by.__module__.startswith(_FOREIGN):
            continue
        parts[f"{role} {made_by.__name__}"] = True
        parts |= {f"{role} {made_by.__name__} {name}": value for name, value in _plain(vars(part))}
        if callable(factor := getattr(part, "factor", None)):
            parts[f"{role} {made_by.__name__} {getattr(part, 'key', '')}"] = _trace(factor, plan.iterations)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in parts.items()}


def _plain(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The plain values that are settings, by name; the learning rate that a schedule changes is one at first."""
    for name, value in values.items():
        if not name.startswith("_") and name not in _OF_THE_STATE and is_plain(value):
            yield name, value


def _trace(factor: Callable[[int], float], iterations: int) -> str:
    """16 hex digits of a schedule's values over a training."""
    points = sorted({number * iterations // _POINTS for number in range(_POINTS)})
    text = " ".join(f"{factor(point):.9g}" for point in points)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
