"""The networks that are compared, each with a name: encoders and classifiers from their files, and baselines.

All of them are shown the same pictures, in 0..1; each subtracts its own mean and divides by its own standard deviation,
as in its training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lessismore_transforms.analysis.model_names import IMAGENET, RANDOM, find_weights, named_models, seed_of
from lessismore_transforms.classification.network import load_classifier
from lessismore_transforms.errors import UserError
from lessismore_transforms.pretraining.export import EPOCHS
from lessismore_transforms.reduction.network_input import normalise
from lessismore_transforms.training.precision import float32_only, pick_device
from lessismore_transforms.weights.backbones import (
    build_backbone,
    normalisation_of,
    read_metadata,
    three_channels,
    weights_id,
)
from lessismore_transforms.wording import listed

ALIKE = ("image_size", "resize", "transpose", "window")  # settings that decide which pictures are shown
_USUAL = {"image_size": 224, "channels": 1, "resize": "bilinear", "transpose": False, "mean": [0.1806], "std": [0.1907]}


@dataclass(frozen=True, eq=False)
class Model:
    """A network under its name.

    Args:
        name: for tables and figures.
        network: in eval mode; gives features (B, F), or a classifier's logits (B, classes), of pictures (B, 1 or 3, S,
            S) in 0..1.
        classes: of a classifier; none of an encoder.
        settings: how it wants its pictures: image_size, channels, resize, transpose, mean, std and perhaps window.
        origin: id of the weights, name of the backbone, whether it is untrained, and the method, epoch and iteration as
            far as they are known.
        checkpoints: files of the encoder during its training, in their order.
    """

    name: str
    network: nn.Module
    classes: tuple[str, ...]
    settings: Mapping[str, Any]
    origin: Mapping[str, Any]
    checkpoints: tuple[Path, ...] = ()

    @torch.no_grad()
    def features(self, images: torch.Tensor, *, outputs: bool = False, batch_size: int = 32) -> torch.Tensor:
        """Features (N, F) of pictures (N, C, S, S), or the outputs (N, classes) of a classifier; float32 on the CPU."""
        device = next(self.network.parameters()).device
        found = []
        with float32_only(device):
            for batch in torch.split(images, batch_size):
                there = three_channels(batch.to(device))
                if self.classes and not outputs:
                    there = self.network.backbone(_normalised(self.network, there))  # type: ignore[operator]
                else:
                    there = self.network(there)
                found.append(there.float().cpu())
        return torch.cat(found)


def load_models(
    models: Sequence[str],
    *,
    backbone: str = "resnet50",
    device: torch.device | str = "cpu",
    alike: Sequence[str] = ALIKE,
    **given: Any,
) -> list[Model]:
    """Load networks.

    Args:
        models: of each `NAME=FILE`: the backbone.safetensors of a pre-training, the model.safetensors of an evaluation,
            a published checkpoint, or the folder of either run, which has the checkpoints of a pre-training too; or
            `NAME=random` or `NAME=random:SEED`, untrained weights of the first encoder's network; or `NAME=NETWORK`,
            untrained weights of a network of torchvision or timm; or `NAME=NETWORK:FILE`, that network with the weights
            in a file; or `NAME=NETWORK:imagenet`, with torchvision's.
        backbone: name of the network for a file without a header.
        device: where they run.
        alike: settings that have to be the same for all networks.
        given: settings that take the place of those in the headers; None for the header's.

    Raises:
        UserError: a name is missing or there twice, a file is not there or is of no known layout, or the networks want
            pictures of different size.
    """
    pairs = named_models(models)
    overriding = {name: value for name, value in given.items() if value is not None}
    place = pick_device(device)
    first = next(path for _, path in pairs if seed_of(path) is None)
    found = [
        _load(name, first if seed is not None else path, backbone, seed=seed)
        for name, path in pairs
        for seed in [seed_of(path)]
    ]
    found = [_shown(model, overriding, place) for model in found]
    for setting in alike:
        values = {model.name: model.settings.get(setting) for model in found if setting in model.settings}
        if len(set(values.values())) > 1:
            told = listed(f"{value} of {name}" for name, value in values.items())
            raise UserError(f"expected models of one {setting}, found {told}: give --{setting} for all of them")
    return found


def checkpoints_of(model: Model) -> Iterator[Model]:
    """The encoder at each of its checkpoints, one after the other, and at the end."""
    device = next(model.network.parameters()).device
    for path in model.checkpoints:
        state = _load(path.stem, str(path), model.origin["backbone"])
        if state.origin["weights"] != model.origin["weights"]:  # the last one may be the end
            yield _shown(state, model.settings, device)
    yield model


def common(models: Sequence[Model], setting: str) -> Any:
    """What the models want of pictures alike: the setting of the first that has it."""
    wanted = [model.settings[setting] for model in models if setting in model.settings]
    if setting == "channels":
        return max(wanted)
    return wanted[0] if wanted else _USUAL.get(setting)


def _load(name: str, place: str, backbone: str, *, seed: int | None = None) -> Model:
    """A network; with a seed, untrained weights of the network that is there."""
    untrained = seed is not None
    path = find_weights(name, place)
    if isinstance(path, tuple):
        return _baseline(name, *path, seed=seed)
    checkpoints = tuple(sorted((Path(place) / EPOCHS).glob("*.safetensors")))  # none where the place is a file
    header = read_metadata(path)
    architecture = header.get("backbone", backbone)
    told: dict[str, Any] = {key: header[key] for key in ("method", "epoch", "iteration") if key in header}
    origin = {"backbone": architecture, **told}
    if "classes" in header and not untrained:
        network, header = load_classifier(path)
        wanted = {**_USUAL, **{key: header[key] for key in (*_USUAL, "window") if key in header}}
        record = header["record"]
        origin |= {"mode": record.get("mode"), "weights": weights_id(network)}
        return Model(name, network, tuple(header["classes"]), wanted, origin)
    encoder = build_backbone(architecture, weights=RANDOM if untrained else path, seed=seed or 0)
    if untrained:
        origin, told, checkpoints = {"backbone": architecture}, {}, ()
    wanted = {key: header[key] for key in ("image_size", "channels", "mean", "std", "window") if key in header}
    wanted = {key: _USUAL[key] for key in ("image_size", "channels", "mean", "std")} | wanted
    told |= {"untrained": True} if untrained else {}
    return Model(name, encoder, (), wanted, {**origin, **told, "weights": weights_id(encoder)}, checkpoints)


def _baseline(name: str, network: str, weights: str, *, seed: int | None) -> Model:
    """A network by its name, with weights of others or none; it wants pictures as its makers say."""
    weights = weights if seed is None else RANDOM
    encoder = build_backbone(network, weights=weights, seed=seed or 0)
    header = {} if weights in (RANDOM, IMAGENET) else read_metadata(weights)
    wanted = {key: header[key] for key in _USUAL if key in header}
    if weights != RANDOM and "mean" not in wanted:
        mean, std = normalisation_of(network)
        wanted = {"channels": 3, **wanted, "mean": mean, "std": std}
    wanted = {key: _USUAL[key] for key in ("image_size", "channels", "mean", "std")} | wanted
    told: dict[str, Any] = {"method": IMAGENET} if weights == IMAGENET else {}
    told |= {"untrained": True} if weights == RANDOM else {}
    return Model(name, encoder, (), wanted, {"backbone": network, **told, "weights": weights_id(encoder)})


def _shown(model: Model, given: Mapping[str, Any], device: torch.device) -> Model:
    """The model on its device, with its settings, given ones first, and a network that normalises its input."""
    settings = {**model.settings, **given}
    network = model.network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.register_forward_pre_hook(_Normalise(settings["mean"], settings["std"]))
    return Model(model.name, network.eval(), model.classes, settings, model.origin, model.checkpoints)


class _Normalise:
    """Normalise what a network is given; a hook, so that the names of its layers stay."""

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.mean, self.std = ([value] if isinstance(value, int | float) else list(value) for value in (mean, std))

    def __call__(self, module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (normalise(given[0], self.mean, self.std), *given[1:])


def _normalised(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Pictures as the hook of a network gives them on, for a part of the network."""
    (hook,) = (hook for hook in network._forward_pre_hooks.values() if isinstance(hook, _Normalise))
    changed: torch.Tensor = hook(network, (images,))[0]
    return changed
