"""A kNN probe: the accuracy with which features classify a labelled set by nearest neighbours, without any training.

Weighted kNN of Wu et al. 2018 (arXiv 1805.01978, Section 3.4), as in DINO (arXiv 2104.14294), with temperature 0.07:
every picture is classified by its k most similar pictures of other groups (patients, volumes).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.nn import functional as F

from lessismore_transforms.errors import UserError
from lessismore_transforms.pretraining.labelled import LabelledSet
from lessismore_transforms.reduction.network_input import normalise
from lessismore_transforms.training.moments import every_epochs
from lessismore_transforms.training.neighbour_votes import neighbour_votes
from lessismore_transforms.training.plan import Plan
from lessismore_transforms.training.processes import process_rank
from lessismore_transforms.weights.backbones import three_channels

NEIGHBOURS = 20
TEMPERATURE = 0.07
_BATCH = 64
_PAIRS = 2**24  # of features compared at once: 64 MiB


class KNNProbe:
    """Measures the backbone before the first step, every `interval` epochs and at the end, on the first process.

    `engine.state.probe` then holds the result of `measure`; at other times it is an empty dict. The first measurement
    is that of random initialisation, which training has to beat. The probe does not change the training: it draws no
    random number and updates no statistics.

    Args:
        backbone: gives features (N, F) of pictures (N, 3, size, size).
        labelled: pictures from `read_labelled`.
        interval: epochs between measurements.
        mean: mean of grey values in 0..1 that training subtracts; one, or one for each channel.
        std: standard deviation that training divides by; one, or one for each channel.
        plan: length of the training; where it counts steps, so does the interval, see `Plan.interval_of`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        labelled: LabelledSet,
        *,
        interval: int,
        mean: Sequence[float],
        std: Sequence[float],
        plan: Plan | None = None,
    ) -> None:
        if interval < 1:
            raise UserError(
                f"expected a probe every epoch or less often, found an interval of {interval}: give 1 or more"
            )
        self.backbone, self.labelled, self.interval = backbone, labelled, interval
        self.mean, self.std, self.plan = tuple(mean), tuple(std), plan
        self._measured_at: int | None = None

    def attach(self, engine: Engine) -> None:
        """Measure while `engine` trains."""
        engine.add_event_handler(Events.STARTED, self._at_first)
        engine.add_event_handler(Events.ITERATION_STARTED, self._clear)
        engine.add_event_handler(every_epochs(self.interval, self.plan), self)
        engine.add_event_handler(Events.COMPLETED, self._at_last)

    def __call__(self, engine: Any) -> None:
        """Measure now."""
        engine.state.probe = {}
        if process_rank() == 0:
            engine.state.probe = self.measure()
            self._measured_at = engine.state.iteration

    def measure(self) -> dict[str, float]:
        """Accuracy, balanced accuracy, and the accuracy of always guessing the largest class."""
        targets, groups = self.labelled.targets, self.labelled.groups
        classes = len(self.labelled.classes)
        features = pooled_features(self.backbone, self.labelled.images, self.mean, self.std)
        found = nearest_classes(features, targets.to(features.device), groups.to(features.device), classes).cpu()
        right = (found == targets).double()
        counts = torch.bincount(targets, minlength=classes)
        recall = torch.bincount(targets, weights=right, minlength=classes) / counts
        return {
            "probe_accuracy": right.mean().item(),
            "probe_balanced_accuracy": recall.mean().item(),
            "probe_majority": (counts.max() / counts.sum()).item(),
        }

    def _clear(self, engine: Any) -> None:
        engine.state.probe = {}

    def _at_first(self, engine: Any) -> None:
        self._clear(engine)
        if engine.state.iteration == 0:
            self(engine)

    def _at_last(self, engine: Any) -> None:
        self._clear(engine)
        if engine.state.iteration != self._measured_at:
            self(engine)


def nearest_classes(
    features: torch.Tensor,
    targets: torch.Tensor,
    groups: torch.Tensor,
    classes: int,
    *,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> torch.Tensor:
    """The class of each picture by a vote of similar pictures of other groups, weighted by exp(cosine / temperature).

    Args:
        features: (N, F).
        targets: int64 (N,), 0..classes - 1.
        groups: int64 (N,), at least two different ones.
        classes: number of classes.
        neighbours: number of neighbours that vote; fewer where other groups have fewer pictures.
        temperature: of the weights.

    Returns:
        int64 (N,).
    """
    directions = F.normalize(features.float())  # (N, F)
    votes = []
    for rows in torch.split(torch.arange(len(directions), device=groups.device), max(1, _PAIRS // len(directions))):
        cosines = directions[rows] @ directions.T  # (R, N)
        cosines.masked_fill_(groups[rows, None] == groups, -torch.inf)
        votes.append(neighbour_votes(cosines, targets, classes, neighbours, temperature))  # (R, C)
    return torch.cat(votes).argmax(1)


@torch.no_grad()
def pooled_features(
    backbone: nn.Module, images: torch.Tensor, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """Features (N, F) of uint8 pictures (N, 1, size, size), on the backbone's device; its state is not changed."""
    device = next(backbone.parameters()).device
    features = []
    with _evaluating(backbone):
        for batch in torch.split(images, _BATCH):
            pictures = three_channels(normalise(batch.to(device).float() / 255, mean, std))  # (B, 3, size, size)
            features.append(backbone(pictures.contiguous(memory_format=torch.channels_last)).float())
    return torch.cat(features)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into eval mode for a while; modules that were in it before (frozen ones) stay in it afterwards."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
