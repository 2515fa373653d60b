"""A network that is filled as a whole or not at all, also where MONAI copies the tensors that fit and drops the rest.

`monai.bundle.load`, `ckpt_export` and `CheckpointLoader` begin with the network's own tensors, replace those for which
a file has one of the same name and shape, and load the result strictly. So a tensor that nobody replaced comes back as
the very memory that the network holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lessismore_transforms.errors import UserError
from lessismore_transforms.weights.backbones import COUNTER


def refuse_parts(network: nn.Module) -> nn.Module:
    """The network, which from now on refuses a state that leaves some of its own tensors in place."""
    network.register_load_state_dict_pre_hook(_refuse)  # type: ignore[no-untyped-call]
    return network


def _refuse(network: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Raise where a state to be loaded holds tensors of the network itself.

    Raises:
        UserError: there are such.
    """
    own = {name: value for name, value in network.state_dict().items() if not name.endswith(COUNTER)}
    kept = [name for name, value in own.items() if _same(value, state.get(f"{prefix}{name}"))]
    if kept:
        raise UserError(
            f"expected weights for all {len(own)} tensors of this network, found none for {len(kept)} of them, first "
            f"{kept[0]}: give the weights of this network, or name the network of these weights "
            "(net_override={'backbone': ...} of monai.bundle.load; for a classifier classes and head too)"
        )


def _same(own: Any, given: Any) -> bool:
    return given is not None and given.numel() > 0 and given.data_ptr() == own.data_ptr()
