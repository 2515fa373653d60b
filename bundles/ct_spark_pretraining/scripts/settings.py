"""The settings of SparK beside those that all pre-trainings share."""

from __future__ import annotations

from dataclasses import dataclass

from lessismore_transforms.errors import UserError
from lessismore_transforms.options import default_of, option
from lessismore_transforms.pretraining.settings import PretrainingSettings

from .sparse import STRIDE


@dataclass(frozen=True)
class Settings(PretrainingSettings):
    """Settings of SparK, by the names that stand at the top of train.json."""

    batch_size: int = default_of(PretrainingSettings, "batch_size", 32)
    mask_ratio: float = option(0.6, help="share of the cells that is masked")
    decoder_width: int = option(768, help="channels of the decoder at its deepest; a multiple of 32")
    drop_path: float = option(
        0.05, help="probability that a slice skips the residual branch of the last block; it rises from 0 at the first"
    )
    learning_rate_per_256: float = option(
        0.0002, help="peak of the learning rate at a batch of 256; it is proportional to the batch"
    )
    weight_decay: float = option(0.04, help="at the start")
    weight_decay_end: float = option(0.2, help="at the end")
    warmup_epochs: int = option(40, help="epochs over which the learning rate rises; fewer than `max_epochs`")
    image_size: int = option(224, help="pixels per side of a view; a multiple of 32")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size < STRIDE or self.image_size % STRIDE:
            raise UserError(f"expected an image_size that {STRIDE} divides, found {self.image_size}; 224 is usual")
