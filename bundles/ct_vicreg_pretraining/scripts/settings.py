"""The settings of VICReg beside those that all pre-trainings share."""

from __future__ import annotations

from dataclasses import dataclass

from lessismore_transforms.options import option
from lessismore_transforms.pretraining.settings import PretrainingSettings


@dataclass(frozen=True)
class Settings(PretrainingSettings):
    """Settings of VICReg, by the names that stand at the top of train.json."""

    expander_width: int = option(8192, help="units of each of the three layers of the expander")
    invariance: float = option(25.0, help="weight of the difference of the two views")
    variance: float = option(25.0, help="weight of what the standard deviations lack of 1")
    covariance: float = option(1.0, help="weight of the squared covariances of different dimensions")
    learning_rate_per_256: float = option(
        0.2, help="peak of the learning rate at a batch of 256; it is proportional to the batch"
    )
    weight_decay: float = option(1e-06, help="of weights; biases and norms do not decay")
    warmup_epochs: int = option(10, help="epochs over which the learning rate rises; fewer than `max_epochs`")
    image_size: int = option(224, help="pixels per side of both views")
