"""What an audit says, in sentences: how many near copies, how close they are, and what follows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lessismore_transforms.audit.measure import LOSS
from lessismore_transforms.audit.neighbours import NEXT, OTHER, at_bits
from lessismore_transforms.methods import METHODS
from lessismore_transforms.pretraining.indicators import NEAR_BITS
from lessismore_transforms.wording import counted, percent

FULL = "all parts"
REFUSED = " (cannot be trained in such batches)"
FEW, MANY = 0.1, 1.0  # exact copies per picture


def find(
    about: Mapping[str, Any], comparison: str, measure: str, neighbour: str, variant: str = FULL
) -> Mapping[str, Any] | None:
    """One of the rates in audit.json; None where it was not measured."""
    for rate in about["rates"][variant]:
        if (rate["comparison"], rate["measure"], rate["neighbour"]) == (comparison, measure, neighbour):
            found: Mapping[str, Any] = rate
            return found
    return None


def near_bits(about: Mapping[str, Any]) -> int:
    """The bits within which slices are called near copies: the paper's threshold, or less where less was looked at."""
    return min(NEAR_BITS, int(about["settings"]["bits"]))


def with_interval(estimate: Mapping[str, Any], unknown: str) -> str:
    """A number with its interval as text; another text where it is unknown."""
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    if value is None or math.isnan(value):
        return unknown
    return f"{value:.2f}" if low is None or math.isnan(low) else f"{value:.2f} ({low:.2f} to {high:.2f})"


def batches_of(about: Mapping[str, Any]) -> str:
    """How batches are drawn, in words."""
    batches, size = about["batches"], about["negatives"][0]["batch_size"]
    if not batches["balance"]:
        return f"batches of {size}"
    together = batches["volumes_per_batch"]
    return f"batches of {size}, {'all volumes' if together is None else counted(together, 'volume')} in turn"


def answer(about: Mapping[str, Any]) -> list[str]:
    """The answer, in plain text."""
    bits, everything = near_bits(about), about["negatives"][0]
    near = everything["near"][bits]
    many = (
        f"With all slices, a picture has {near['per_picture']:.2f} near copies (same volume, within {at_bits(bits)}) "
        f"among the others of its batch ({batches_of(about)}); "
        f"{percent(near['at_least_one'])} of the pictures have one or more."
    )
    encoders = [_of_encoder(about, model["name"]) for model in about["models"]]
    return [many, *encoders, *_of_parts(about), _verdict(about), *_of_selections(about)]


def judges(about: Mapping[str, Any]) -> list[str]:
    """The encoders that the verdict rests on: those that were trained, or all where none was."""
    trained = [model["name"] for model in about["models"] if not model.get("untrained")]
    return trained or [model["name"] for model in about["models"]]


def _of_encoder(about: Mapping[str, Any], name: str) -> str:
    near, other = (find(about, LOSS, name, kind) for kind in (NEXT, OTHER))
    if near is None:
        return f"{name}: no slice has a neighbour in its volume."
    told = f"To {name}, the next slice's view is closer than the second view in {percent(near['rate'])} of the cases"
    if other is None:
        return (
            f"{told} (an exact copy: 50 %); what another patient's slice would be is unknown, as there is one patient."
        )
    told += f" (an exact copy: 50 %; another patient's slice: {percent(other['rate'])})"
    if near["likeness"] is None:
        return f"{told}: it cannot tell patients apart under these views, so it says nothing."
    low, high = near["likeness_low"], near["likeness_high"]
    interval = "" if None in (low, high) else f" ({low:.2f} to {high:.2f})"
    return f"{told}: a likeness of {near['likeness']:.2f}{interval}, where 1 is the slice itself."


def _of_parts(about: Mapping[str, Any]) -> list[str]:
    """Which part of the views brings neighbours closer, to the first encoder that the verdict rests on."""
    name, parts = judges(about)[0], about["parts"]
    alone = {part: find(about, LOSS, name, NEXT, f"{part} alone") for part in parts}
    without = {part: find(about, LOSS, name, NEXT, f"without {part}") for part in parts}
    if len(parts) < 2 or None in alone.values():
        return []
    strongest = max(parts, key=lambda part: alone[part]["rate"])  # type: ignore[index]
    decisive = min(parts, key=lambda part: without[part]["rate"])  # type: ignore[index]
    return [
        f"Of the parts of the views, {strongest} alone brings it to {percent(alone[strongest]['rate'])}; "  # type: ignore[index]
        f"leaving out {decisive} lowers it most, to {percent(without[decisive]['rate'])}."  # type: ignore[index]
    ]


def _verdict(about: Mapping[str, Any]) -> str:
    if not about["has_negatives"]:
        title = METHODS[about["method"]].title
        return (
            f"The loss of {title} has no negatives, so near copies cannot be false ones there. They cost time, and "
            "give volumes with many of them more weight."
        )
    found = _as_exact(about, about["negatives"][0])
    if about["data"]["patients"] == 1:
        return "There is one patient, so what is far cannot be told: audit slices of several."
    if about["remedies"]:
        return (
            f"The configuration has {' and '.join(about['remedies'])}, which keeps near copies from each other; these "
            "numbers are of a training without."
        )
    if not found:
        return "No encoder tells patients apart under these views: give one that was trained, by --models."
    told = " or ".join(with_interval(each, "") for each in found)
    amount = f"To its loss, the slices of a volume together are as {told} exact copies per picture and batch"
    if all(model.get("untrained") for model in about["models"]):
        return f"{amount}. That is to random weights: for a verdict give an encoder that was trained, by --models."
    if any(each["low"] is None for each in found):
        return f"{amount}. There is no interval, as too few patients are left when one is taken out."
    low, high = min(each["low"] for each in found), max(each["high"] for each in found)
    if high < FEW:
        return f"{amount}: too few to matter. Expect shorter epochs of a reduction, not better encoders."
    if low >= MANY:
        return (
            f"{amount}: the premise holds. Whether a reduction, or masked near copies, helps, a training has to show."
        )
    if low >= FEW:
        return f"{amount}: the premise holds in part. A reduction, or masked near copies, may help; try it small."
    return f"{amount}: these data do not tell whether that is enough to matter. Audit more patients, or try it small."


def _of_selections(about: Mapping[str, Any]) -> list[str]:
    """What the selections leave of it."""
    if not about["has_negatives"] or not _as_exact(about, about["negatives"][0]):
        return []
    left = [(row["selection"], _as_exact(about, row)) for row in about["negatives"][1:]]
    told = [f"{name} {' or '.join(with_interval(each, '') for each in found)}" for name, found in left if found]
    short = [row["selection"] for row in about["negatives"] if row["slices"] < about["batches"]["batch_size"]]
    own = f"{', '.join(short)}: fewer slices than negatives, so that pictures meet themselves, which is not counted."
    return [*([f"Selections leave of it: {'; '.join(told)}."] if told else []), *([own] if short else [])]


def _as_exact(about: Mapping[str, Any], row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a selection's negatives are in exact copies, to the encoders that the verdict rests on."""
    told = [row["as_exact_copies"][name] for name in judges(about)]
    return [each for each in told if each["value"] is not None]
