"""The settings of an analysis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lessismore_transforms.analysis.layers import Layers
from lessismore_transforms.errors import UserError
from lessismore_transforms.options import is_number, option
from lessismore_transforms.wording import listed

ANALYSES = ("cka", "map", "attention", "encoder")
CLASSES = ("predicted", "true")
_LEAST = {  # of whole numbers
    "batch_size": 4, "image_size": 1, "overlays": 0, "pictures": 4, "positions": 1, "seed": 0, "seeds": 1,
}  # fmt: skip


@dataclass(frozen=True)
class AnalysisSettings:
    """Settings of an analysis, in the order in which they stand at the top of the configuration."""

    dataset_dir: str | Path | Sequence[str | Path] = option(
        help="folder of PNG, JPEG, TIFF or DICOM pictures, or the output of a reduction, or several", role="path"
    )
    selection: str = option("default", help="which selection of such outputs", role="path")
    labels: str | Path | None = option(
        None,
        help="table of the pictures, `FILE.csv` or `FILE.csv:SPLIT`, see above; `folders` for a folder of each class",
        role="path",
    )
    output_dir: str | Path = option("analysis", help="folder for the results", role="path")
    models: str | Sequence[str] | None = option(
        None, help="what is compared, each as `NAME=FILE`, `NAME=RUN` or `NAME=random`, see above", role="path"
    )
    pairs: Sequence[Sequence[str]] | None = option(
        None,
        help="pairs of names to compare, the further ones set against the first; none for all pairs",
    )
    analyses: Sequence[str] = option(ANALYSES, help="which of `cka`, `map`, `attention` and `encoder`")
    pictures: int | None = option(1000, help="the most pictures, drawn at random; none for all")
    seed: int = option(0, help="of the draw of pictures, of folds and of views")
    batch_size: int = option(32, help="pictures at once; each layer's similarities are estimated within batches")
    device: Any = option(None, help="torch device, such as `cuda:1`", role="speed")
    backbone: str = option("resnet50", help="network of a file without a header")
    image_size: int | None = option(None, help="pixels per side; none for that of the training")
    mean: Sequence[float] | None = option(None, help="subtracted from values of 0..1; none for that of the training")
    std: Sequence[float] | None = option(None, help="what they are divided by; none for that of the training")
    window: str | None = option(None, help="HU window of DICOM pictures; none for that of the training, or min-max")
    layers: Layers = option("all", help="`all`, `blocks` or a list of names of layers")
    positions: int | None = option(None, help="compare large layers by so many positions: faster, another estimate")
    perplexity: float | None = option(None, help="of t-SNE; none for 30, or a third of the other pictures")
    seeds: int = option(5, help="number of t-SNE maps, each begun with other noise")
    attention_layer: str | None = option(None, help="layer that attention is taken from; none for the last block")
    attention_class: str = option(
        "predicted", help="class whose evidence Grad-CAM shows: `predicted` or `true`", choices=CLASSES
    )
    share: float = option(0.5, help="of a map's range, from which on a place counts as attended")
    overlays: int = option(8, help="pictures that are shown with their attention")

    def __post_init__(self) -> None:
        for name in ("models", "analyses"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value or ()))
        if not self.analyses or not {*self.analyses} <= {*ANALYSES}:
            found = next((repr(name) for name in self.analyses if name not in ANALYSES), "none")
            raise UserError(f"expected analyses out of {listed(ANALYSES)}, found {found}: leave them out for all")
        if self.attention_class not in CLASSES:
            raise UserError(
                f"expected attention_class {listed(CLASSES, 'or')}, found {self.attention_class!r}: predicted is usual"
            )
        if not is_number(self.share, float, int) or not 0 < self.share <= 1:
            raise UserError(f"expected a share of the maximum above 0 and up to 1, found {self.share!r}: 0.5 is usual")
        if self.perplexity is not None and not (is_number(self.perplexity, float, int) and self.perplexity >= 1):
            raise UserError(f"expected a perplexity of 1 or more, found {self.perplexity!r}: 30 is usual")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and (not is_number(value, int) or value < least):
                raise UserError(
                    f"expected {name} to be a whole number of {least} or more, found {value!r}: leave it out"
                )
        for name, above in (("mean", -math.inf), ("std", 0)):
            value = getattr(self, name)
            numbers = value if isinstance(value, list | tuple) else [value]
            if value is None:
                continue
            if len(numbers) not in (1, 3) or not all(is_number(each, float, int) and each > above for each in numbers):
                limit = " above 0" if name == "std" else ""
                raise UserError(
                    f"expected {name} to be one number{limit} or three, found {value!r}: leave it out for that of the "
                    "training"
                )
