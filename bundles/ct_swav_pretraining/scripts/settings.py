"""The settings of SwAV beside those that all pre-trainings share."""

from __future__ import annotations

from dataclasses import dataclass

from lessismore_transforms.options import option
from lessismore_transforms.pretraining.settings import PretrainingSettings


@dataclass(frozen=True)
class Settings(PretrainingSettings):
    """Settings of SwAV, by the names that stand at the top of train.json."""

    prototypes: int = option(500, help="clusters")
    freeze_prototypes: int = option(313, help="how long the prototypes keep still at first; 0 for not at all")
    freeze_unit: str = option("iterations", help="or `epochs`")
    queue_length: int = option(0, help="embeddings of earlier batches that help to share out a small batch; 0 for none")
    queue_start_epoch: int = option(15, help="epochs that go by before the queue fills; it is used once it is full")
    temperature: float = option(0.1, help="softness of the predictions")
    epsilon: float = option(0.05, help="softness of the codes")
    sinkhorn_iterations: int = option(3, help="rounds of Sinkhorn's algorithm")
    learning_rate: float = option(0.15, help="its peak, at the end of the warm-up")
    weight_decay: float = option(1e-6, help="of all parameters")
    warmup_epochs: int = option(10, help="epochs over which the learning rate rises from 0; fewer than `max_epochs`")
    large_size: int = option(224, help="pixels per side of the two large crops")
    small_size: int = option(96, help="pixels per side of the small crops")
    small_crops: int = option(6, help="small crops per slice")
