"""The settings of BreaKHis beside those that all tasks share."""

from __future__ import annotations

from dataclasses import dataclass

from lessismore_transforms.classification.data_settings import ProtocolSettings
from lessismore_transforms.classification.settings import ClassificationSettings
from lessismore_transforms.options import default_of, option


@dataclass(frozen=True)
class Settings(ProtocolSettings):
    """Settings of BreaKHis, by the names that stand at the top of train.json."""

    magnification: int | str | None = option(
        None, help="of the pictures that are taken: 40, 100, 200 or 400; none, or `all`: all of them"
    )
    protocol: str = default_of(ProtocolSettings, "protocol", "folds")
    channels: int = default_of(ClassificationSettings, "channels", 3)
