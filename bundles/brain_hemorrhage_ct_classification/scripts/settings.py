"""The settings of the brain hemorrhage task beside those that all tasks share."""

from __future__ import annotations

from dataclasses import dataclass

from lessismore_transforms.classification.data_settings import FoldSettings, LabelSettings
from lessismore_transforms.options import default_of


@dataclass(frozen=True)
class Settings(LabelSettings, FoldSettings):
    """Settings of the brain hemorrhage task, by the names that stand at the top of train.json."""

    window: str | None = default_of(LabelSettings, "window", "brain")
