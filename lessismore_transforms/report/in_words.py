"""What a target does, as a sentence."""

from __future__ import annotations

from lessismore_transforms.reduction.measures import MEASURES
from lessismore_transforms.reduction.target import Target
from lessismore_transforms.wording import counted, percent


def in_words(target: Target) -> str:
    """Which slices go, as a sentence."""
    if target.method == "all":
        return "Every slice that can be read stays; nothing is compared."
    if not target.compares:
        return f"{_places(target)}; nothing is compared."
    if target.fraction is not None:
        left = f"until {percent(target.fraction)} of each volume's slices are left"
        return f"Pair by pair, the most similar first, the later slice goes, {left}."
    measure = MEASURES[target.measure]
    if measure.similarity:
        alike = f"are alike by at least {target.threshold:g} ({measure.unit})"
    elif target.threshold:
        alike = f"differ in at most {target.threshold:g} of the hash's 64 bits"
    else:
        alike = "have the same hash"
    if target.rule == "exemplars":
        near = f", but for the {counted(target.near, 'nearest slice')} of each" if target.near else ""
        where = {"volume": "its volume", "patient": "a volume of its patient", "all": "any volume"}[target.scope]
        return f"A slice goes when it and a slice that was kept before it in {where} {alike}{near}."
    return f"Pair by pair, the most similar first, the later slice goes, as long as the two {alike}."


def _places(target: Target) -> str:
    """Which slices stay by their place or by chance."""
    how = "evenly spread" if target.method == "every_n" else f"drawn at random, seed {target.seed}"
    if target.like is not None:
        return f"As many of each volume's slices stay as in the selection {target.like}, {how}"
    if target.fraction is not None:
        return f"{percent(target.fraction)} of each volume's slices stay, {how}"
    if target.step is not None:
        return f"One of every {counted(target.step, 'slice')} stays, from slice {target.offset:g} on"
    return f"One slice every {target.step_mm:g} mm stays, from {target.offset:g} mm on"
