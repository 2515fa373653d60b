"""The settings of colorectal histology beside those that all tasks share."""

from __future__ import annotations

from dataclasses import dataclass

from lessismore_transforms.classification.data_settings import FoldSettings, HeadSettings
from lessismore_transforms.classification.settings import ClassificationSettings
from lessismore_transforms.options import default_of, option


@dataclass(frozen=True)
class Settings(HeadSettings, FoldSettings):
    """Settings of colorectal histology, by the names that stand at the top of train.json."""

    unit: str = option(
        "slide", help="what stays together: `slide`, which stands for the patient, or `region`, a cut-out of a slide"
    )
    channels: int = default_of(ClassificationSettings, "channels", 3)
    positive: int = default_of(ClassificationSettings, "positive", 0)
