"""The settings of SimCLR beside those that all pre-trainings share."""

from __future__ import annotations

from dataclasses import dataclass

from lessismore_transforms.options import option
from lessismore_transforms.pretraining.settings import ContrastiveSettings


@dataclass(frozen=True)
class Settings(ContrastiveSettings):
    """Settings of SimCLR, by the names that stand at the top of train.json."""

    temperature: float = option(0.1, help="softness of the comparison")
    learning_rate_per_256: float = option(
        0.3, help="peak of the learning rate at a batch of 256; it is proportional to the batch"
    )
    weight_decay: float = option(1e-06, help="of weights; biases and norms do not decay")
    warmup_epochs: int = option(10, help="epochs over which the learning rate rises; fewer than `max_epochs`")
    image_size: int = option(224, help="pixels per side of both views")
