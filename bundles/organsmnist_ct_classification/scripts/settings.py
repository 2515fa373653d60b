"""The settings of OrganSMNIST beside those that all tasks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lessismore_transforms.classification.settings import ClassificationSettings
from lessismore_transforms.options import default_of, option


@dataclass(frozen=True)
class Settings(ClassificationSettings):
    """Settings of OrganSMNIST, by the names that stand at the top of train.json."""

    size: int = option(28, help="pixels per side in the official file: 28, 64, 128 or 224", role="setting")
    npz: str | None = option(None, help="another file's name in `dataset_dir`", role="setting")
    classes: Sequence[str] | None = option(
        None, help="names of its classes, a list; none: the official 11", role="setting"
    )
    md5: str = option("official", help="checksum that the file must have; or 32 hex digits, or `any`", role="setting")
    download: bool = option(False, help="fetch a missing official file", role="speed")
    flip: float = default_of(ClassificationSettings, "flip", 0.0)
