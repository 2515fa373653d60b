"""What a probe reads, looked for before anything is read and before PyTorch is imported."""

from __future__ import annotations

from lessismore_transforms.analysis.model_names import named_models
from lessismore_transforms.classification.label_table import find_table
from lessismore_transforms.errors import UserError
from lessismore_transforms.probing.settings import ProbeSettings


def check_places(settings: ProbeSettings) -> None:
    """Refuse networks, pictures or a table of labels that are not there.

    Raises:
        UserError: one is not.
    """
    if not settings.dataset_dir.is_dir():
        raise UserError(f"expected a folder of pictures at {settings.dataset_dir}, found none: check the path")
    if settings.bundle is None:
        find_table(settings.dataset_dir, settings.labels)
    named_models(settings.models)
