"""Parameters of a network in groups: weights, which decay, and biases and norms, which do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn


def parameter_groups(
    network: nn.Module,
    weight_decay: float,
    *,
    norms_too: bool = False,
    without_decay: Sequence[str] = (),
    constant: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Groups for an optimiser: weights decay; biases, norms and what else is named do not.

    LARS and LAMB adapt the learning rate layer by layer only where weights decay.

    Args:
        network: what is trained; parameters without gradient belong to no group.
        weight_decay: of the weights.
        norms_too: let biases and norms decay as well.
        without_decay: parts of names of further parameters that do not decay.
        constant: with what the names of parameters begin whose learning rate no schedule changes.

    Returns:
        Two groups, or four where some learning rates are constant: groups marked `constant`, which
        `schedules.Schedule` leaves alone.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            weight = norms_too or (parameter.ndim > 1 and not name.endswith(".bias"))
            decays = weight and not any(text in name for text in without_decay)
            stays = name.startswith(tuple(constant))
            groups.setdefault((stays, not decays), []).append(parameter)
    return [
        {
            "params": groups[key],
            "weight_decay": 0.0 if key[1] else weight_decay,
            **({"constant": True} if key[0] else {}),
        }
        for key in sorted(groups)
    ]
