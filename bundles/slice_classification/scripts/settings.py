"""The settings of own labelled slices beside those that all tasks share."""

from __future__ import annotations

from dataclasses import dataclass

from lessismore_transforms.classification.data_settings import LabelSettings, ProtocolSettings
from lessismore_transforms.classification.protocol import CORRELATION
from lessismore_transforms.options import option


@dataclass(frozen=True)
class Settings(LabelSettings, ProtocolSettings):
    """Settings of own labelled slices, by the names that stand at the top of train.json."""

    task: str = option("Own", help="name of the data set in tables", role="setting")
    group_column: str | None = option(
        None,
        help="column of what belongs together where no patient is known, such as a paper, case or slide; none: `group` "
        "or `source`",
        role="setting",
    )
    near_duplicates: float | None = option(
        CORRELATION,
        help="correlation from which on pictures that have neither a patient nor a group become one group; none: each "
        "counts as its own",
    )
