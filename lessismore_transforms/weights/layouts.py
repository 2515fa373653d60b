"""The method of a checkpoint, recognised by its keys, and the tensors of its backbone by torchvision's names.

The layouts that can be read are our own backbones and checkpoints, the state_dict of a plain network, and the published
ones of methods (`methods.py`), with or without the `module.` of a distributed run. Nothing in a file is executed:
tensors are read, objects of a few harmless types are skipped, any other object is refused by name.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessismore_transforms.errors import UserError
from lessismore_transforms.methods import METHODS, SHARED_LAYOUT, Layout, method_of
from lessismore_transforms.weights.safe_load import load_safely, refusal

if TYPE_CHECKING:
    import torch

PLAIN = "plain"  # a network that does not say how it was trained
_PUBLISHED = {name: method.layout for name, method in METHODS.items() if method.layout}
LAYOUTS = ", ".join(
    (
        "a plain state_dict",
        "our own backbone.safetensors and last.pt",
        *(each.text for each in _PUBLISHED.values()),
        SHARED_LAYOUT.text,
    )
)

BACKBONE, MODEL = "backbone.safetensors", "model.safetensors"  # of our runs: an encoder, a classifier
SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".pth.tar")
_HARMLESS = (  # what training scripts leave in their checkpoints beside tensors: options, losses, learning rates
    "argparse.Namespace",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",  # NumPy 1
    "numpy._core.multiarray.scalar",
)


def read_backbone(path: Path | str, *, method: str | None = None) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of a backbone by name, and the method that trained it.

    The heads of the known methods are left out; the last layer of a plain network is not.

    Args:
        path: a file in .safetensors, .pt, .pth, .ckpt or .pth.tar.
        method: the method that the file must be of; a plain network agrees with every method. None takes any file.

    Returns:
        The tensors by name, and a name of METHODS, or PLAIN, or the method in the header of a backbone of ours.

    Raises:
        UserError: the file is missing, damaged, unsafe, of no known layout or of another method, or there is no
            such method.
    """
    wanted = None if method is None else method_of(method).name
    content, header_method = _read(Path(path))
    tensors, found = _recognise(content, path)
    if found == PLAIN and header_method:
        found = header_method
    if wanted is not None and found not in (PLAIN, wanted):
        raise UserError(
            f"expected weights of method {wanted} in {path}, found those of {found}: "
            f"give method {found}, or another file"
        )
    return tensors, found


def must_exist(path: Path) -> None:
    """Refuse a path where there is no file.

    Raises:
        UserError: there is no such file.
    """
    if not path.is_file():
        raise UserError(f"expected a file of weights at {path}, found none; fix the path{or_the_bundle(path)}")


def or_the_bundle(path: Path) -> str:
    """The advice, where a path is that of a bundle's own weights, to say from another folder where the bundle is."""
    return ", or name the bundle's folder by --bundle_root" if path.parent.name == "models" else ""


class _PassedOver:
    """A stand-in for an object of a harmless type, so that not even that type's own code runs."""

    def __new__(cls, *args: Any) -> _PassedOver:
        """Accept the arguments of the type, whatever they are."""
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        """Ignore the arguments."""

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""


def _read(path: Path) -> tuple[Any, str | None]:
    """The content of a file, and the method in its header."""
    from safetensors import safe_open

    if not path.name.endswith(SUFFIXES):
        known = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise UserError(f"expected weights in {known}, found {path}; convert them")
    must_exist(path)
    if path.suffix != ".safetensors":
        return load_safely(path, allowed=[(_PassedOver, name) for name in _HARMLESS]), None
    try:
        with safe_open(path, framework="pt") as file:
            method = (file.metadata() or {}).get("method")
            return {key: file.get_tensor(key) for key in file.keys()}, method  # noqa: SIM118 (no mapping)
    except Exception as error:  # what is damaged raises many kinds
        raise refusal(error, path) from error


def _recognise(content: Any, path: Path | str) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of the backbone in the content of a file, and the method to which this layout belongs."""
    if not isinstance(content, Mapping):
        raise _unknown(path, type(content).__name__)
    if own := _own(content):
        return own
    if isinstance(model := content.get("model"), Mapping) and any(
        str(key).startswith(SHARED_LAYOUT.mark) for key in model
    ):
        return _backbone(_tensors(model), SHARED_LAYOUT), PLAIN
    inner = [content[key] for key in ("module", "state_dict") if isinstance(content.get(key), Mapping)]
    state = inner[0] if len(inner) == 1 else content
    tensors = _tensors(state)
    if tensors and all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    found = {name: one for name, one in _PUBLISHED.items() if any(key.startswith(one.mark) for key in tensors)}
    if len(found) > 1:
        raise UserError(
            f"expected weights of one method in {path}, found those of {' and '.join(found)} ("
            f"{', '.join(f'{one.mark}*' for one in found.values())}): save the state_dict of the backbone that is meant"
        )
    if found:
        ((method, layout),) = found.items()
        return _backbone(tensors, layout), method
    if not tensors or len(tensors) < len(state):
        raise _unknown(path, ", ".join(itertools.islice(map(str, state or content), 5)) or "nothing")
    told = [name for name, layout in _PUBLISHED.items() if layout.entry and layout.entry in content]
    return tensors, told[0] if told else PLAIN


def _own(content: Mapping[Any, Any]) -> tuple[dict[str, torch.Tensor], str] | None:
    """The backbone in a checkpoint of ours (`training.checkpoint`) and its method; None for other files."""
    match content:
        case {"format": 1, "identity": {"method": str(method)}, "state": {"network": {**network}}}:
            tensors = _backbone(_tensors(network), Layout(method, "backbone.", "backbone."))
            return (tensors, method) if tensors else None
    return None


def _tensors(state: Mapping[Any, Any]) -> dict[str, torch.Tensor]:
    import torch

    return {str(key): value for key, value in state.items() if isinstance(value, torch.Tensor)}


def _backbone(tensors: Mapping[str, torch.Tensor], layout: Layout) -> dict[str, torch.Tensor]:
    names = {key: key.removeprefix(layout.prefix) for key in tensors if key.startswith(layout.prefix)}
    return {name: tensors[key] for key, name in names.items() if not name.startswith(layout.heads)}


def _unknown(path: Path | str, found: str) -> UserError:
    return UserError(
        f"expected weights in {path} in a known layout ({LAYOUTS}), found {found}; save the network's state_dict"
    )
