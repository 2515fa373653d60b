"""`explain`: the page of a finished analysis again, from its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lessismore_transforms.cli.command import Command
from lessismore_transforms.options import argument


@dataclass(frozen=True)
class Explain:
    """The options of `explain`."""

    analysis: Path = argument(metavar="ANALYSIS", help="output folder of the bundle ssl_representation_analysis")


def explain(options: Explain) -> int:
    """Write the page."""
    from lessismore_transforms.analysis.page import write_page

    print(f"page: {write_page(options.analysis)}")
    return 0


COMMANDS = {
    "explain": Command(
        Explain,
        explain,
        description="Write ANALYSIS/analysis.html again from the numbers, maps and overlays beside it; no network is "
        "needed.",
    ),
}
