"""`audit`: whether near copies are closer to a slice than its own second view, before anything is trained."""

from __future__ import annotations

from lessismore_transforms.audit.settings import AuditSettings
from lessismore_transforms.cli.command import Command


def audit(settings: AuditSettings) -> int:
    """Audit data and views and write all that was found."""
    from lessismore_transforms.analysis.model_names import named_models

    named_models(settings.models)  # before the seconds that the next import takes
    from lessismore_transforms.audit import run

    print(f"\npage: {run.audit(settings)}")
    return 0


COMMANDS = {
    "audit": Command(
        AuditSettings,
        audit,
        description="Tell whether your slices and views need reduction at all: how often a neighbour in the volume is "
        "closer to a slice than the slice's own second view is, by hash, SSIM and the features of encoders; how likely "
        "such a near copy is among the negatives of a batch, for ALL and each selection of OUT; and which part of the "
        "views decides it. Nothing is trained.",
    ),
}
