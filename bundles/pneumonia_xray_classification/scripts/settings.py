"""The settings of chest X-rays of children beside those that all tasks share."""

from __future__ import annotations

from dataclasses import dataclass

from lessismore_transforms.classification.data_settings import HeadSettings
from lessismore_transforms.options import option


@dataclass(frozen=True)
class Settings(HeadSettings):
    """Settings of chest X-rays of children, by the names that stand at the top of train.json."""

    validation: float = option(0.1, help="share of train and val, merged, that is the validation split")
    split_seed: int = option(0, help="of the validation split")
