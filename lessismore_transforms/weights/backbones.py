"""Networks by name, with known weights: built, loaded strictly, and identified by a short id.

Weights come from a file, from torchvision (ImageNet), or from a seed. A file either fills every tensor of the network
or is refused, so that no result rests on weights that were not loaded. Our own backbones are safetensors with
torchvision's names (318 for a ResNet50, without its `fc`); other layouts are recognised, see `layouts`. Nothing here
uses the internet, save for weights="imagenet" where torchvision has not downloaded them yet.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from lessismore_transforms import __version__
from lessismore_transforms.atomic import atomic_write
from lessismore_transforms.errors import UserError, first_line
from lessismore_transforms.methods import method_of
from lessismore_transforms.weights.layouts import LAYOUTS, SUFFIXES, must_exist, read_backbone
from lessismore_transforms.weights.safe_load import refusal

if TYPE_CHECKING:
    import torch
    from torch import nn

OUTPUTS = ("pooled", "logits")
COUNTER = "num_batches_tracked"  # of a batch norm: no weight, and absent from torchvision's older files

_TIMM = "timm:"


def build_backbone(
    name: str = "resnet50",
    *,
    weights: Path | str | None,
    output: str = "pooled",
    seed: int = 0,
    method: str | None = None,
) -> nn.Module:
    """Build a network in eval mode, on the CPU, with its weights.

    Args:
        name: a classification model of torchvision, or `timm:NAME` where timm is installed.
        weights: a file of any layout that `layouts.read_backbone` knows; "imagenet", torchvision's first weights
            of that network (IMAGENET1K_V1 for a ResNet50), downloaded where they are not in its cache; or "random".
            None is refused.
        output: "pooled" gives the input of the last layer, (N, 2048) for a ResNet50, and needs no weights of that
            layer; "logits" gives its output, (N, 1000).
        seed: of the random weights; the caller's random numbers are not changed.
        method: method by which a file must have been pre-trained, out of `methods.METHODS`; None takes any.

    Raises:
        UserError: the network is unknown, its weights are missing or are those of another network or method, or timm is
            asked for and not installed.
    """
    import torch

    if output not in OUTPUTS:
        raise UserError(f"expected an output out of {', '.join(OUTPUTS)}, found {output!r}; pooled is usual")
    if weights is None or not str(weights):
        raise UserError(f"expected weights for {name}, found none; give a file, or imagenet, or random")
    if method is not None and weights in ("imagenet", "random"):
        raise UserError(f"expected a file of weights for method {method_of(method).name}, found {weights}; give one")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        build = _build_timm if name.startswith(_TIMM) else _build_torchvision
        backbone, head = build(name, output, pretrained=weights == "imagenet")
    if weights not in ("imagenet", "random"):
        tensors, _ = read_backbone(weights, method=method)
        load_strictly(backbone, tensors, f"{name} ({output})", weights, head)
    return backbone.eval()


def to_encoder(backbone: nn.Module, device: str = "cpu") -> nn.Module:
    """A fast copy of a network: eval mode, channels_last, batch norms folded.

    A batch norm right behind a convolution becomes part of its weights; in torchvision's ResNets all of them do.
    Features change by rounding only (1e-6 of their size). The names of the weights change, so export and compute
    `weights_id` before.

    Args:
        backbone: any network; it is not changed.
        device: where to put the copy.
    """
    import torch
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval
    from torchvision.models import resnet

    encoder = copy.deepcopy(backbone).eval()
    for module in list(encoder.modules()):
        in_order = isinstance(module, resnet.ResNet | resnet.BasicBlock | resnet.Bottleneck)  # children as they run
        if not in_order and type(module).forward is not nn.Sequential.forward:
            continue
        for (first, conv), (second, norm) in itertools.pairwise(list(module.named_children())):
            if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.track_running_stats:
                module.set_submodule(first, fuse_conv_bn_eval(conv, norm))
                module.set_submodule(second, nn.Identity())
    return encoder.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def feature_size(backbone: nn.Module) -> int:
    """The number F of features of a backbone that maps pictures (N, 3, H, W) of any size to (N, F), also in training.

    Raises:
        UserError: the network does not map pictures so.
    """
    import torch

    probe = copy.deepcopy(backbone).train()  # a copy: batch norms take in what they see
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            features: Any = probe(torch.zeros(2, 3, 64, 64))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise UserError(
            "expected a network for pictures of any size, found that this one cannot take 64 x 64 "
            f"({first_line(error)}); take a ResNet"
        ) from error
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        found = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        raise UserError(f"expected a network that gives (N, F) for (N, 3, H, W), found {found}; take a ResNet")
    return features.shape[1]


def three_channels(images: torch.Tensor) -> torch.Tensor:
    """Pictures (N, 1, H, W) as (N, 3, H, W) without a copy; three channels stay as they are."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def read_tensors(path: Path | str) -> dict[str, torch.Tensor]:
    """The tensors of a weights file by name, without the heads of pre-training.

    Raises:
        UserError: the file is missing, damaged, unsafe, or of no known layout.
    """
    return read_backbone(path)[0]


def save_backbone(path: Path, backbone: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Write a network's tensors as safetensors, whole or not at all.

    Args:
        path: the file; replaced if it exists.
        backbone: the network.
        metadata: values for the file's header, written as text or JSON.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save

    tensors = {key: value.detach().cpu().contiguous() for key, value in backbone.state_dict().items()}
    header = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    with atomic_write(path, "wb") as file:
        file.write(save(tensors, metadata={"version": __version__, **header}))


def read_metadata(path: Path | str) -> dict[str, Any]:
    """The metadata in the header of a safetensors file; {} for other files, and where there are none.

    Raises:
        UserError: the file is damaged.
    """
    import safetensors

    if Path(path).suffix != ".safetensors":
        return {}
    must_exist(Path(path))
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise refusal(error, path) from error
    return {key: _plain(value) for key, value in header.items()}


def load_strictly(
    backbone: nn.Module, tensors: Mapping[str, torch.Tensor], name: str, source: Path | str, head: Iterable[str] = ()
) -> None:
    """Fill every tensor of a network, or raise.

    Args:
        backbone: the network to fill.
        tensors: its tensors by name. Counters of batch norms may be missing.
        name: name of the network in an error message.
        source: origin of the tensors in an error message.
        head: layers whose tensors may be there although the network has none of them: its former last layer.

    Raises:
        UserError: a tensor is missing, has another shape, or is not in the network (a ResNet101 holds all of a
            ResNet50).
    """
    expected = backbone.state_dict()
    missing = [key for key in expected if key not in tensors and not key.endswith(COUNTER)]
    misshapen = [key for key, value in expected.items() if key in tensors and tensors[key].shape != value.shape]
    dropped = tuple(f"{layer}." for layer in head)
    surplus = [key for key in tensors if key not in expected and not key.startswith(dropped)]
    wrong = []
    if missing:
        wrong.append(f"{len(missing)} missing, first {missing[0]}")
    if misshapen:
        first = misshapen[0]
        shapes = f"{tuple(tensors[first].shape)} instead of {tuple(expected[first].shape)}"
        wrong.append(f"{len(misshapen)} of another shape, first {first} {shapes}")
    if surplus:
        wrong.append(f"{len(surplus)} unknown, first {surplus[0]}")
    if wrong:
        matched = sum(key in tensors for key in expected) - len(misshapen)
        layouts = "" if matched or misshapen else f"; known layouts are {LAYOUTS}"
        raise UserError(
            f"expected the {len(expected)} tensors of {name}, found {matched} of them in {source} "
            f"({'; '.join(wrong)}): give weights of this network, or name the network that they are of{layouts}"
        )
    backbone.load_state_dict({key: tensors.get(key, value) for key, value in expected.items()})


def weights_id(source: nn.Module | Path | str | Mapping[str, torch.Tensor]) -> str:
    """An id of weights by their content: the first 16 hex digits of a SHA-256 of all tensors, their names and shapes.

    A network and the file that filled it have the same id if the file holds no more than the network.

    Args:
        source: a network, a file that `read_tensors` reads, or its tensors.

    Raises:
        UserError: the file cannot be read.
    """
    import torch

    if isinstance(source, Path | str):
        source = read_tensors(source)
    tensors: Mapping[str, Any] = source if isinstance(source, Mapping) else source.state_dict()
    digest = hashlib.sha256()
    for key in sorted(key for key in tensors if not key.endswith(COUNTER)):
        value = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def find_network(text: str) -> tuple[str, str] | None:
    """The network and the weights that a text `NETWORK`, `NETWORK:WEIGHTS` names; None where it names no network.

    A network of timm needs no `timm:` before it unless torchvision has one of that name. Without weights they are
    `random`.
    """
    plain = text.removeprefix(_TIMM)
    name, colon, weights = plain.partition(":")
    if (colon and not weights) or "/" in name or "\\" in name or name.endswith(SUFFIXES):
        return None
    if plain == text and name in _of_torchvision():
        return name, weights or "random"
    try:
        import timm
    except ModuleNotFoundError:
        return None
    return (f"{_TIMM}{name}", weights or "random") if timm.is_model(name) else None


def normalisation_of(name: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation, of three channels in 0..1, by which a network's makers normalise pictures.

    Those of ImageNet, but for networks of timm that tell others.
    """
    if name.startswith(_TIMM):
        import timm

        told = timm.get_pretrained_cfg(name.removeprefix(_TIMM))
        if told is not None:
            return list(told.mean), list(told.std)
    return [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def _of_torchvision() -> list[str]:
    from torchvision import models

    known: list[str] = models.list_models(module=models)
    return known


def _build_torchvision(name: str, output: str, *, pretrained: bool) -> tuple[nn.Module, list[str]]:
    """Build a torchvision model; returns it with the names of the layers that it lacks."""
    import torch
    from torch import nn
    from torchvision import models

    known = _of_torchvision()
    if name not in known:
        hint = f"; those of timm are called {_TIMM}NAME"
        raise UserError(f"expected a classification model of torchvision, found {name!r}{_similar(name, known)}{hint}")
    chosen = next(iter(models.get_model_weights(name))) if pretrained else None
    try:
        backbone: nn.Module = models.get_model(name, weights=chosen)
    except (OSError, RuntimeError, HTTPException, UnpicklingError, EOFError) as error:
        if chosen is None:
            raise
        file = Path(torch.hub.get_dir()) / "checkpoints" / chosen.url.rpartition("/")[2]
        damaged = isinstance(error, UnpicklingError | EOFError | RuntimeError)  # PyTorch advises to load it unsafely
        reason = "a damaged file" if damaged else first_line(error)
        raise UserError(
            f"expected torchvision's ImageNet weights of {name} at {file} or on the network, found neither "
            f"({reason}): put {chosen.url} there (TORCH_HOME moves that folder), or give a file of weights"
        ) from error
    if output == "logits":
        return backbone, []
    last = [key for key, layer in backbone.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    backbone.set_submodule(last, nn.Identity())
    return backbone, [last]


def _build_timm(name: str, output: str, *, pretrained: bool) -> tuple[nn.Module, list[str]]:
    """Build a timm model; returns it with the names of the layers that it lacks."""
    try:
        import timm
    except ModuleNotFoundError as error:
        raise UserError(f"{name} needs timm: install it with `pip install timm`") from error

    plain = name.removeprefix(_TIMM)
    if not timm.is_model(plain):  # which also keeps names that mean a download (hf-hub:...) away
        raise UserError(f"expected a model of timm, found {plain!r}{_similar(plain, timm.list_models())}")
    if pretrained:
        raise UserError(
            f"expected a file of weights for {name}, found imagenet, which is for torchvision's models; save the "
            f'state_dict of timm.create_model("{plain}", pretrained=True) once and give that file'
        )
    if output == "logits":
        return timm.create_model(plain), []
    backbone: Any = timm.create_model(plain, num_classes=0)
    head = backbone.pretrained_cfg.get("classifier") or ()
    return backbone, [head] if isinstance(head, str) else list(head)


def _similar(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name.lower(), known)
    return f"; similar names are {', '.join(close)}" if close else ""


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
