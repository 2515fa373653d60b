"""The settings of BYOL beside those that all pre-trainings share."""

from __future__ import annotations

from dataclasses import dataclass

from lessismore_transforms.options import option
from lessismore_transforms.pretraining.settings import PretrainingSettings


@dataclass(frozen=True)
class Settings(PretrainingSettings):
    """Settings of BYOL, by the names that stand at the top of train.json."""

    target_momentum: float = option(
        0.996, help="share of itself that the target keeps in the first step; it rises to 1 by half a cosine"
    )
    learning_rate_per_256: float = option(
        0.2, help="peak of the learning rate at a batch of 256; it is proportional to the batch"
    )
    weight_decay: float = option(1.5e-06, help="of weights; biases and norms do not decay")
    warmup_epochs: int = option(10, help="epochs over which the learning rate rises; fewer than `max_epochs`")
    image_size: int = option(224, help="pixels per side of both views")
