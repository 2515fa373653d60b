"""What a reduction is: its target, its pixels, its measure. Each option stands here once, with default and help text.

Nothing is imported that computes: `reduce --help` answers at once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lessismore_transforms.errors import UserError
from lessismore_transforms.options import names, nested, option, options_of

if TYPE_CHECKING:
    from lessismore_transforms.reduction.target import Target

_AMOUNT = "what to keep (default: HASH at 6 bits; a tenth for the other methods)"
_MEASURES = "measures other than HASH"


@dataclass(frozen=True)
class TargetOptions:
    """What to keep, as the user says it; `target` checks it and fills in what depends on the method."""

    method: str = option(
        "hash",
        help="how redundancy is measured; every_n, random and all measure nothing",
        choices=("hash", "ssim", "mi", "deepnet", "every_n", "random", "all"),
        group=_AMOUNT,
    )
    threshold: float | None = option(
        None,
        help="remove slices as close as this: HASH 0 to 64 bits; SSIM and cosine up to 1, MI 1 to 2 (similarities)",
        metavar="T",
        group=_AMOUNT,
    )
    fraction: float | None = option(None, help="keep this share of every volume, e.g. 0.1", metavar="F", group=_AMOUNT)
    rule: str | None = option(
        None,
        help="exemplars, as the released scripts (default with a HASH threshold), or pairs, as the paper (default)",
        choices=("exemplars", "pairs"),
        group=_AMOUNT,
    )
    step: int | None = option(None, help="every_n: keep every N-th slice", metavar="N", group=_AMOUNT)
    step_mm: float | None = option(None, help="every_n: keep a slice every so many mm", metavar="MM", group=_AMOUNT)
    offset: float = option(0, help="every_n: where to begin, in slices or mm", metavar="K", group=_AMOUNT)

    seed: int = option(0, help="random: of the draw", group=_AMOUNT)

    def target(self, **more: Any) -> Target:
        """The checked target, with more that only some commands offer.

        Raises:
            UserError: a value is out of range, or values exclude each other.
        """
        from lessismore_transforms.reduction.target import Target

        return Target.of(**vars(self), **more)


def _usual_target() -> Target:
    return TargetOptions().target()


@dataclass(frozen=True)
class Encoder:
    """The network of DeepNet, see `backbones.build_backbone` and `reduction.embedding.embed`."""

    name: str = option("resnet50", name="encoder", help="deepnet: torchvision network, or timm:NAME", group=_MEASURES)
    weights: str = option(
        "imagenet", help="deepnet: local weights, or torchvision's ImageNet", metavar="FILE", group=_MEASURES
    )
    output: str = option(
        "pooled", name="features", help="deepnet: what to compare", choices=("pooled", "logits"), group=_MEASURES
    )
    precision: str = option(
        "float32", help="deepnet: bfloat16 is faster and less exact", choices=("float32", "bfloat16"), group=_MEASURES
    )

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
    """What decides the content of an output folder, and what a worker may use for it."""

    target: Target = field(default_factory=_usual_target)
    pixels: str = "clipped"  # or released, or a window: `reduce` has --pixels and --window for it
    as_released: bool = option(
        False, help="orientation, slice order and scaling of the released scripts instead of the canonical ones"
    )
    include: tuple[str, ...] = option((), help="only files that match, e.g. CT.nii.gz (repeatable)", metavar="GLOB")
    patterns: tuple[str, ...] = option(
        (),
        name="pattern",
        help="names of 2-D slices: lidc, petct, numbered, or a regular expression with (?P<index>..) (repeatable)",
        metavar="NAME|REGEX",
    )
    keep_patient_ids: bool = option(False, help="write patient ids as found, not hashed")
    body: bool = option(False, help="leave out slices without a body: empty, air, table only")
    keep_distances: bool = option(False, help="store all distances, for rule exemplars", group=_MEASURES)
    bins: int = option(64, help="mi: grey levels of the joint histogram", group=_MEASURES)
    encoder: Encoder = nested(Encoder)
    device: str | None = option(
        None, help="torch device for ssim, mi and deepnet, e.g. cuda (default: CPU)", role="speed", group=_MEASURES
    )
    memory_mb: int = option(
        4096, help="pictures of a volume per worker", role="speed", metavar="MB", least=0, group=_MEASURES
    )

    def __post_init__(self) -> None:
        from lessismore_transforms.reduction.measures import BINS
        from lessismore_transforms.volumes.pixels import check_pixels

        check_pixels(self.pixels)
        if self.target.rule == "exemplars" and self.target.measure != "hash" and not self.keep_distances:
            raise UserError(f"the exemplar rule for {self.target.method} needs all distances: add --keep_distances")
        if self.bins not in BINS:
            raise UserError(f"expected bins out of {', '.join(map(str, BINS))}, found {self.bins}")

    @property
    def used_device(self) -> str | None:
        """The torch device, where the measure computes on one; HASH does not, nor do methods that measure nothing."""
        return None if self.target.measure == "hash" else self.device

    def as_dict(self, key: bytes) -> dict[str, Any]:
        """What the manifest holds of the settings: all but the target, which its selection holds."""
        from lessismore_transforms.reduced.patients import key_fingerprint

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


_USED_BY = {
    "keep_distances": ("ssim", "mi", "deepnet"),
    "bins": ("mi",),
    **dict.fromkeys(names(Encoder), ("deepnet",)),
}


def refuse_unused(settings: Settings) -> None:
    """Refuse options that only other methods use, where they are not what they are by default.

    Python callers may use the same settings for several methods; of a user at the command line it is a mistake.

    Raises:
        UserError: there are such options.
    """
    method = settings.target.method
    encoder = dict(zip(names(Encoder), vars(settings.encoder).values(), strict=True))
    values = {**vars(settings), **encoder}
    unused = [
        f"--{each.name} (of {', '.join(_USED_BY[each.name])})"
        for each in options_of(settings)
        if method not in _USED_BY.get(each.name, (method,)) and values[each.name] != each.default
    ]
    if unused:
        raise UserError(f"expected options that the method {method} uses, found {', '.join(unused)}: drop them")
