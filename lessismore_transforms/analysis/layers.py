"""The layers of a network that an analysis looks at, in the order in which a picture passes them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # those of one process and of several

from lessismore_transforms.errors import UserError

Layers: TypeAlias = str | Sequence[str]
Look: TypeAlias = Callable[[str, torch.Tensor], None]

ALL, BLOCKS = "all", "blocks"
_BLOCKS = {"BasicBlock", "Bottleneck"}  # names of the classes, torchvision's and timm's
_KINDS = (nn.Conv2d, _BatchNorm, nn.MaxPool2d, nn.AdaptiveAvgPool2d)


def layer_names(network: nn.Module, example_input: torch.Tensor, layers: Layers = ALL) -> list[str]:
    """The full names of the layers to look at, in the order in which their outputs are computed.

    A block comes when its output comes, behind the layers in it. "all" are the convolutions, batch norms, max pools,
    adaptive average pools and residual blocks: 124 of a ResNet50, the choice of CKA.pytorch (Kim & Han 2023). "blocks"
    are the residual blocks and, before them, the last max pool ahead of the first block, which is the output of the
    stem: 17 of a ResNet50.

    Args:
        network: in eval mode; one batch passes it.
        example_input: pictures (B, C, H, W) on the device of the network.
        layers: "all", "blocks" or names of modules as `named_modules` gives them. The name of the one module that holds
            the encoder may be left out, so that `layer1.0` also finds `backbone.layer1.0`.

    Raises:
        UserError: the network is in training mode, a name is unknown, or there is no such layer.
    """
    if network.training:
        raise UserError("expected a network in eval mode, found training mode, where batches mix; call network.eval()")
    if isinstance(layers, str) and layers not in (ALL, BLOCKS):
        raise UserError(f"expected layers all, blocks or a list of names, found {layers!r}; blocks is a quick choice")
    modules = {name: module for name, module in network.named_modules() if name}
    if isinstance(layers, str):
        chosen = [name for name, module in modules.items() if isinstance(module, _KINDS) or is_block(module)]
    else:
        chosen = [full_name(name, list(modules)) for name in layers]
    computed = _computed(network, example_input, chosen)
    if layers == BLOCKS:
        computed = _stem_and_blocks(computed, modules)
    missing = [] if isinstance(layers, str) else [name for name in chosen if name not in computed]
    if missing:
        raise UserError(
            f"expected layers that give a tensor of floats with a row for each picture, found that {missing[0]} does "
            "not; name another one"
        )
    if not computed:
        kinds = "residual blocks" if layers == BLOCKS else "convolutions, batch norms, pools or residual blocks"
        wanted = kinds if isinstance(layers, str) else "one name or more"
        raise UserError(
            f"expected {wanted}, found none in a {type(network).__name__}; give the names of layers, such as "
            f"{', '.join(list(modules)[:3]) or 'those of another network'}"
        )
    return computed


def short_names(names: Sequence[str]) -> list[str]:
    """Names for people: without the modules that hold all of these layers, as `backbone.` in `backbone.conv1`.

    Numbers stay behind what they count: `layer1.0` and `layer1.1` are short already.
    """
    short = list(names)
    while short:
        heads, rests = {name.partition(".")[0] for name in short}, [name.partition(".")[2] for name in short]
        if len(heads) > 1 or any(not rest or rest[0].isdigit() for rest in rests):
            break
        short = rests
    return short


@contextmanager
def watching(network: nn.Module, names: Sequence[str], look: Look) -> Iterator[None]:
    """Call `look` with the name and the output of each of these layers, as soon as it is computed.

    What is to be known of an output has to be taken from it at once: a ReLU that works in place changes the output of
    the batch norm before it. Of a layer that is used several times within the block the first output is shown. Outputs
    that are no tensor are not shown.

    Args:
        network: its hooks are removed at the end of the block.
        names: full names of layers.
        look: gets the name and the output.
    """
    seen: set[str] = set()

    def hook_of(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if name not in seen and isinstance(output, torch.Tensor):
                seen.add(name)
                look(name, output)

        return hook

    with ExitStack() as hooks:
        for name in names:
            hooks.callback(network.get_submodule(name).register_forward_hook(hook_of(name)).remove)
        yield


def _computed(network: nn.Module, images: torch.Tensor, names: Sequence[str]) -> list[str]:
    """Those of the layers that give floats for each picture, in the order in which they are computed."""
    order: list[str] = []

    def note(name: str, output: torch.Tensor) -> None:
        if output.ndim > 1 and len(output) == len(images) and output.is_floating_point():
            order.append(name)

    with torch.inference_mode(), watching(network, names, note):
        network(images)
    return order


def is_block(module: nn.Module) -> bool:
    """Whether a module is a residual block of torchvision's or timm's ResNets."""
    return any(kind.__name__ in _BLOCKS for kind in type(module).__mro__)


def _stem_and_blocks(names: list[str], modules: dict[str, nn.Module]) -> list[str]:
    blocks = [name for name in names if is_block(modules[name])]
    ahead = names[: names.index(blocks[0])] if blocks else []
    pools = [name for name in ahead if isinstance(modules[name], nn.MaxPool2d)]
    return pools[-1:] + blocks


def full_name(name: str, known: Sequence[str]) -> str:
    """The name of a module, where that of the one module that holds it may be left out.

    Raises:
        UserError: the network has no such module; the closest one is named.
    """
    if name in known:
        return name
    inside = [full for full in known if full.partition(".")[2] == name]
    if len(inside) == 1:
        return inside[0]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0)
    raise UserError(
        f"expected names of layers, found {name!r}, which the network does not have; the closest one is "
        f"{close[0] if close else 'not there'}"
    )
