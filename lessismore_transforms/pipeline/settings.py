"""What a reduction is: its target, its pixels, its measure; all of it decides the content of the output folder."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduced.patients import key_fingerprint
from lessismore_transforms.reduction.measures import BINS
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.volumes.pixels import check_pixels


@dataclass(frozen=True)
class Encoder:
    """The network of DeepNet, see `backbones.build_backbone` and `reduction.embedding.embed`."""

    name: str = "resnet50"
    weights: str = "imagenet"
    output: str = "pooled"
    precision: str = "float32"

    def as_dict(self) -> dict[str, str]:
        """What the manifest holds: the weights by their content, not by the file that they came from."""
        from lessismore_transforms.weights.backbones import weights_id

        content = {"name": self.name, "weights": weights_id(network(self)), "output": self.output}
        return {**content, "precision": self.precision}


@functools.lru_cache(maxsize=1)
def network(encoder: Encoder) -> Any:
    """The network, built once in each process."""
    from lessismore_transforms.weights.backbones import build_backbone

    return build_backbone(encoder.name, weights=encoder.weights, output=encoder.output)


@dataclass(frozen=True)
class Settings:
    """What decides the content of an output folder; see `reduce --help` for each."""

    target: Target = field(default_factory=Target.of)
    pixels: str = "clipped"
    as_released: bool = False
    include: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    keep_patient_ids: bool = False
    body: bool = False
    keep_distances: bool = False
    bins: int = 64
    encoder: Encoder = field(default_factory=Encoder)
    device: str | None = None
    memory_mb: int = 4096

    def __post_init__(self) -> None:
        check_pixels(self.pixels)
        if self.target.rule == "exemplars" and self.target.measure != "hash" and not self.keep_distances:
            raise UserError(f"the exemplar rule for {self.target.method} needs all distances: add --keep_distances")
        if self.bins not in BINS:
            raise UserError(f"expected bins out of {', '.join(map(str, BINS))}, found {self.bins}")

    def as_dict(self, key: bytes) -> dict[str, Any]:
        """What the manifest holds of the settings: all but the target, which its selection holds."""
        measure = self.target.measure
        return {
            "method": measure,
            **({"bins": self.bins} if measure == "mi" else {}),
            **({"encoder": self.encoder.as_dict()} if measure == "deepnet" else {}),
            **({"body": True} if self.body else {}),
            **({"keep_distances": True} if self.keep_distances else {}),
            "pixels": self.pixels,
            "as_released": self.as_released,
            "include": list(self.include),
            "patterns": list(self.patterns),
            "patients": "as found" if self.keep_patient_ids else f"hashed with key {key_fingerprint(key)}",
        }
