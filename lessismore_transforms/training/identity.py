"""What the parts of a training really hold, as plain values by name, wherever they were configured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lessismore_transforms.options import is_plain

_FOREIGN = ("monai.", "ignite.")  # their handlers report and save, and may come and go
_OF_THE_STATE = ("training", "queue_started", "call_super_init", "dump_patches")  # of modules, and no settings


def parts_identity(
    *,
    points: Iterable[int],
    optimizer: Optimizer,
    schedule: Callable[[int], float] | None,
    loss_function: Any,
    network: nn.Module,
    handlers: Sequence[Any] = (),
) -> dict[str, Any]:
    """The values of the parts that decide what is trained.

    Args:
        points: iterations, counted from 0, in which schedules are compared.
        optimizer: with the values that the configuration gave.
        schedule: factor of the learning rate, of the iteration counted from 0; None for 1 throughout.
        loss_function: of the method.
        network: as it is before anything wraps it.
        handlers: of the method; those of MONAI and Ignite do not count.
    """
    points = list(points)
    parts: dict[str, Any] = {"optimizer": type(optimizer).__name__}
    for number, group in enumerate(optimizer.param_groups, start=1):
        parts |= {f"optimizer group {number} {name}": value for name, value in plain_parts(group)}
    parts["schedule"] = None if schedule is None else _trace(schedule, points)
    for role, part in [("loss", loss_function), ("network", network), *(("handler", each) for each in handlers)]:
        made_by = type(part)
        if role == "handler" and made_by.__module__.startswith(_FOREIGN):
            continue
        parts[f"{role} {made_by.__name__}"] = True
        parts |= {
            f"{role} {made_by.__name__} {name}": value for name, value in plain_parts(getattr(part, "__dict__", {}))
        }
        if callable(factor := getattr(part, "factor", None)):
            parts[f"{role} {made_by.__name__} {getattr(part, 'key', '')}"] = _trace(factor, points)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in parts.items()}


def plain_parts(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The plain values that are settings, by name; the learning rate that a schedule changes is one at first."""
    for name, value in values.items():
        if not name.startswith("_") and name not in _OF_THE_STATE and is_plain(value):
            yield name, value


def _trace(factor: Callable[[int], float], points: Iterable[int]) -> str:
    """16 hex digits of a schedule's values."""
    text = " ".join(f"{factor(point):.9g}" for point in points)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
