"""The settings of SimSiam beside those that all pre-trainings share."""

from __future__ import annotations

from dataclasses import dataclass

from lessismore_transforms.options import option
from lessismore_transforms.pretraining.settings import PretrainingSettings


@dataclass(frozen=True)
class Settings(PretrainingSettings):
    """Settings of SimSiam, by the names that stand at the top of train.json."""

    learning_rate_per_256: float = option(
        0.05, help="of all but the predictor at the start, of the predictor for good, at a batch of 256; in proportion"
    )
    sgd_momentum: float = option(0.9, help="of the optimiser")
    weight_decay: float = option(0.0001, help="of all parameters, biases and norms too")
    image_size: int = option(224, help="pixels per side of both views")
