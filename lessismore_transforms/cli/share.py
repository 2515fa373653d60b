"""`share`: a trained network as a bundle, or as a folder for a model hub, with a card of facts."""

from __future__ import annotations

from dataclasses import replace

from lessismore_transforms.cli.ask import ask
from lessismore_transforms.cli.command import Command
from lessismore_transforms.sharing.settings import ShareSettings


def share(settings: ShareSettings) -> int:
    """Ask for what only a person can state, then write and prove the folder."""
    if not settings.output_dir.exists():
        if settings.license is None:
            settings = replace(settings, license=ask("Licence of the weights, such as cc-by-4.0:"))
        if not settings.author and (name := ask("Who shares them:")):
            settings = replace(settings, author=(name,))
    from lessismore_transforms.sharing.share import check

    check(settings)
    from lessismore_transforms.sharing import share as sharing

    folder = sharing.share(settings)
    card = folder / ("README.md" if settings.hub else "docs/README.md")
    print(f"proven and written: {folder}; read its card {card} before you hand it on")
    return 0


COMMANDS = {
    "share": Command(
        ShareSettings,
        share,
        description="Make of a finished pre-training, or of a run of a classification, a MONAI bundle with weights and "
        "a card that holds facts of the run alone. Weights are loaded back and the bundle is run before it is written. "
        "Nothing is uploaded.",
    ),
}
