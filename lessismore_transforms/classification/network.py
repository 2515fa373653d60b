"""An encoder with a head, one linear layer or a small perceptron, built, saved and loaded strictly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # those of one process and of several

from lessismore_transforms.errors import UserError
from lessismore_transforms.weights.backbones import (
    build_backbone,
    feature_size,
    load_strictly,
    read_metadata,
    read_tensors,
    save_backbone,
    three_channels,
    weights_id,
)
from lessismore_transforms.weights.layouts import PLAIN, read_backbone
from lessismore_transforms.weights.whole import refuse_parts

_HIDDEN = 512


def linear_head(features: int, classes: int) -> nn.Module:
    """The linear layer of Wolf et al. 2024, Section 2.3."""
    return nn.Linear(features, classes)


def mlp_head(features: int, classes: int) -> nn.Module:
    """The perceptron of SmallDataSSL (Chattopadhyay et al. 2023, released linear.py), which calls it linear."""
    return nn.Sequential(
        nn.Linear(features, _HIDDEN),
        nn.BatchNorm1d(_HIDDEN),
        nn.LeakyReLU(),
        nn.Linear(_HIDDEN, classes),
    )


HEADS: Mapping[str, Callable[[int, int], nn.Module]] = {"linear": linear_head, "mlp": mlp_head}


class Classifier(nn.Module):
    """An encoder and the head that classifies its features.

    While the encoder is frozen it gets no gradient. Its batch norms then use and keep the statistics of pre-training in
    every mode of the network; or they alone go on training, as in the released code.

    Args:
        backbone: maps pictures (B, 3, H, W) to features (B, features).
        features: number of features of the backbone.
        classes: number of classes.
        head: one of `HEADS`.

    Raises:
        UserError: there is no such head.
    """

    def __init__(self, backbone: nn.Module, features: int, classes: int, head: str = "linear") -> None:
        super().__init__()
        self.backbone = backbone
        self.classes, self.features, self.head = classes, features, head
        self.classifier = build_head(head, features, classes)
        self._frozen = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The logits (B, classes) of pictures (B, 1 or 3, H, W)."""
        logits: torch.Tensor = self.classifier(self.backbone(three_channels(images)))
        return logits

    def freeze(self, frozen: bool, *, batch_norm: bool = True) -> None:
        """Freeze the encoder or let it train.

        Args:
            frozen: whether its weights are frozen.
            batch_norm: whether weights and statistics of its batch norms are frozen too.
        """
        self._frozen = frozen and batch_norm
        for module in self.backbone.modules():
            trains = not frozen or (isinstance(module, _BatchNorm) and not batch_norm)
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(trains)
        self.train(self.training)

    def train(self, mode: bool = True) -> Classifier:
        """Put the network into training or evaluation mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self._frozen:
            self.backbone.eval()
        return self


def build_head(head: str, features: int, classes: int) -> nn.Module:
    """A head at random.

    Raises:
        UserError: there is no such head.
    """
    if head not in HEADS:
        raise UserError(f"expected a head out of {', '.join(HEADS)}, found {head!r}; linear is usual")
    return HEADS[head](features, classes)


def build_classifier(
    backbone: str = "resnet50",
    classes: int = 2,
    *,
    weights: str | Path = "random",
    method: str | None = None,
    seed: int = 0,
    head: str = "linear",
) -> Classifier:
    """Build a classifier in evaluation mode, its head at random.

    Args:
        backbone: a classification model of torchvision, or `timm:NAME`.
        classes: number of classes.
        weights: of the backbone: a file of any layout that `layouts.read_backbone` knows, `imagenet` or `random`.
        method: method by which a file must have been pre-trained; None takes any.
        seed: of what is random; the caller's random numbers are left as they are.
        head: one of `HEADS`.

    Raises:
        UserError: network or head are unknown, its weights are not there, or are those of another network or method.
    """
    encoder = build_backbone(backbone, weights=weights, method=method, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Classifier(encoder, feature_size(encoder), classes, head).eval()


def untrained_classifier(
    backbone: str = "resnet50", classes: int = 2, *, seed: int = 0, head: str = "linear"
) -> Classifier:
    """A classifier at random that takes the weights of all its tensors or none, as `network_def` of a configuration.

    Args:
        backbone: a classification model of torchvision, or `timm:NAME`.
        classes: number of classes.
        seed: of its random weights.
        head: one of `HEADS`.

    Raises:
        UserError: network or head are unknown.
    """
    network = build_classifier(backbone, classes, seed=seed, head=head)
    refuse_parts(network)
    return network


def starting_from(network: Classifier, encoder: nn.Module, classes: int, seed: int) -> Classifier:
    """A classifier with the weights of an encoder, and a head for the classes of the data.

    Args:
        network: by `untrained_classifier`; it is changed. Its head stays if it has as many classes.
        encoder: of the same kind as that of the network.
        classes: number of classes.
        seed: of another head, which is the one that a network built for these classes has.
    """
    network.backbone.load_state_dict(encoder.state_dict())
    if classes != network.classes:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network.classifier = build_head(network.head, network.features, classes)
        network.classes = classes
    return network.eval()


def weights_of(weights: str | Path) -> dict[str, Any]:
    """The origin of an encoder's first weights: method, id, epoch and iteration, each None if it is not known.

    Args:
        weights: a file, `imagenet` or `random`.

    Raises:
        UserError: the file is missing, damaged, or of no known layout.
    """
    if weights in ("imagenet", "random"):
        return {"method": "imagenet" if weights == "imagenet" else None, "id": None, "epoch": None, "iteration": None}
    tensors, method = read_backbone(weights)
    length = {name: read_metadata(weights).get(name) for name in ("epoch", "iteration")}
    return {"method": None if method == PLAIN else method, "id": weights_id(tensors), **length}


def save_classifier(path: Path, network: Classifier, header: Mapping[str, Any]) -> None:
    """Write a classifier as safetensors, whole or not at all.

    Args:
        path: the file; replaced if it exists.
        network: without wrappers.
        header: plain values from which the network is built and pictures are prepared.

    Raises:
        OutputError: the file cannot be written.
    """
    save_backbone(path, network, header)


def load_classifier(path: Path | str) -> tuple[Classifier, dict[str, Any]]:
    """A classifier from a file by `save_classifier`, in evaluation mode, and the header of the file.

    Raises:
        UserError: the file is missing, damaged, or not a classifier of ours.
    """
    header = read_metadata(path)
    if not {"backbone", "classes", "record"} <= header.keys():
        raise UserError(
            f"expected a model.safetensors of a classification run, found {path}: its header lacks backbone, classes "
            "or the record of the training; give the file that the training wrote"
        )
    network = build_classifier(header["backbone"], len(header["classes"]), head=header.get("head", "linear"))
    load_strictly(network, read_tensors(path), f"a {header['backbone']} for {len(header['classes'])} classes", path)
    return network, header
