"""The settings of SparK beside those that all pre-trainings share."""

from __future__ import annotations

from dataclasses import dataclass

from lessismore_transforms.options import default_of, option
from lessismore_transforms.pretraining.settings import PretrainingSettings


@dataclass(frozen=True)
class Settings(PretrainingSettings):
    """Settings of SparK, by the names that stand at the top of train.json."""

    batch_size: int = default_of(PretrainingSettings, "batch_size", 32)
    mask_ratio: float = option(0.6, help="share of the cells that is masked", role="setting")
    decoder_width: int = option(768, help="channels of the decoder at its deepest; a multiple of 32", role="setting")
    drop_path: float = option(
        0.05,
        help="probability that a slice skips the residual branch of the last block; it rises from 0 at the first",
        role="setting",
    )
    learning_rate_per_256: float = option(
        0.0002, help="peak of the learning rate at a batch of 256; it is proportional to the batch", role="setting"
    )
    weight_decay: float = option(0.04, help="at the start", role="setting")
    weight_decay_end: float = option(0.2, help="at the end", role="setting")
    warmup_epochs: int = option(
        40, help="epochs over which the learning rate rises; fewer than `max_epochs`", role="setting"
    )
    image_size: int = option(224, help="pixels per side of a view; a multiple of 32", role="setting")
