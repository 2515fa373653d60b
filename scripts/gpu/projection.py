"""What the pre-trainings that the paper timed would take here, from the step that was measured."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from gpu.setup import Figure, LeftOut, Setup

EPOCHS = 800
# Slices and hours of the paper's Sections 3.2 to 3.4 (Table 1, HASH thresholds, Figure 7), SwAV on an RTX 3090.
TRAININGS = (
    ("PET-CT ALL", 541_439, 538),
    ("PET-CT HASH-6", 48_718, 62),
    ("LIDC ALL", 244_527, 280),
    ("LIDC HASH-6", 22_672, 27),
)


def hours(setup: Setup) -> Iterator[Figure]:
    """Hours of SwAV, 800 epochs, from the pictures per second of `method_swav`."""
    measured = setup.output_dir / "method_swav.json"
    if not measured.is_file():
        raise LeftOut("the step method_swav has to run before")
    figures = json.loads(measured.read_text(encoding="utf-8"))["figures"]
    speeds = [figure for figure in figures if figure["what"].startswith("pictures per second")]
    if not speeds:
        raise LeftOut("method_swav gave no pictures per second")
    rate, (batch,) = float(speeds[0]["value"]), re.findall(r"batch (\d+)", speeds[0]["what"])
    for name, slices, paper_h in TRAININGS:
        seen = slices // int(batch) * int(batch)  # what does not fill a batch is left out
        taken = seen * EPOCHS / rate / 3600
        said = f"{name}: {seen:,} slices x {EPOCHS} epochs / {rate:.0f} per s / 3600 (the paper: {paper_h} h)"
        yield Figure(said, f"{taken:.1f} h, {paper_h / taken:.1f}x less")
