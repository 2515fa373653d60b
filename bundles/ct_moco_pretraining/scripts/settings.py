"""The settings of MoCo beside those that all pre-trainings share."""

from __future__ import annotations

from dataclasses import dataclass

from lessismore_transforms.options import default_of, option
from lessismore_transforms.pretraining.settings import ContrastiveSettings


@dataclass(frozen=True)
class Settings(ContrastiveSettings):
    """Settings of MoCo, by the names that stand at the top of train.json."""

    batch_size: int = default_of(ContrastiveSettings, "batch_size", 64)
    mlp: bool = option(True, help="head of two layers, as in version 2; `false`: of one, as in version 1")
    queue_length: int | None = option(None, help="keys in the queue, a multiple of `batch_size`")
    key_momentum: float = option(0.999, help="share of itself that the key encoder keeps in a step")
    key_groups: int = option(2, help="in a single process, groups of a batch that are normalised apart, see above")
    temperature: float = option(0.07, help="softness of the comparison")
    learning_rate: float | None = option(None, help="its value at the start")
    sgd_momentum: float = option(0.9, help="of the optimiser")
    weight_decay: float = option(0.0001, help="of all parameters")
    image_size: int = option(224, help="pixels per side of both views")
