"""`probe`: frozen networks compared by what is simple to learn from their features."""

from __future__ import annotations

from lessismore_transforms.cli.command import Command
from lessismore_transforms.probing.settings import ProbeSettings


def probe(settings: ProbeSettings) -> int:
    """Compare networks and write all that was found."""
    from lessismore_transforms.probing.places import check_places

    check_places(settings)  # before the seconds that the next import takes
    from lessismore_transforms.probing import run

    print(f"\npage: {run.probe(settings)}")
    return 0


COMMANDS = {
    "probe": Command(
        ProbeSettings,
        probe,
        description="Compare frozen networks on labelled pictures: a logistic regression on their features, whose "
        "penalty is chosen inside each training part, nearest neighbours, and regressions on few labels; the same "
        "folds for all, no patient in two of them. Writes the predictions of every fold, which `table` reads, a table "
        "and a page.",
    ),
}
