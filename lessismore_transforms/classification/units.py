"""The unit of statistics: what is drawn, exchanged and counted as one. The patient, else the source, else the picture.

Pictures of a patient, or of one paper, look alike: taken for independent, they make intervals too narrow and p too
small.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.classification.predictions import Predictions
from lessismore_transforms.wording import counted, listed, plural

Ints = NDArray[np.int64]
KINDS = ("patient", "source", "image")


def keys_of(run: Predictions) -> list[tuple[str, str]]:
    """The unit of each picture as its kind and name: its patient, else its source, else itself."""
    columns = zip(run.patients, run.sources, run.image_ids, strict=True)
    pairs = (list(zip(KINDS, names, strict=True)) for names in columns)
    return [next((pair for pair in several if pair[1]), several[-1]) for several in pairs]


def unit_of(runs: Sequence[Predictions]) -> str:
    """The kind of the units of runs: patient, source or image; `patient or image` where it is not one for all."""
    kinds = {kind for run in runs for kind, _ in keys_of(run)}
    return " or ".join(kind for kind in KINDS if kind in kinds)


def plural_unit(unit: str) -> str:
    """A kind of units as `unit_of` names it, for several: `patients`, `patients and images`."""
    return " and ".join(plural(0, kind) for kind in unit.split(" or "))


def counted_units(count: int, unit: str) -> str:
    """`1 patient`, `95 sources`, `176 sources and images`."""
    return f"{count:,} {unit if count == 1 else plural_unit(unit)}"


def whose(runs: Sequence[Predictions]) -> str:
    """The units of test sets, counted: `95 sources`, `30 patients and 4 single images`; empty if all are images."""
    units = {key for run in runs for key in keys_of(run)}
    counts = {kind: sum(of == kind for of, _ in units) for kind in KINDS}
    words = [counted(counts[kind], kind) for kind in KINDS[:2] if counts[kind]]
    if words and counts["image"]:
        words.append(counted(counts["image"], "single image"))
    return listed(words) if len(words) > 1 else "".join(words)


def units(runs: Sequence[Predictions]) -> tuple[list[Ints], int]:
    """The unit's number for each image of each run, the same in all runs, and the number of units."""
    numbers: dict[tuple[str, str], int] = {}
    found = [np.array([numbers.setdefault(key, len(numbers)) for key in keys_of(run)], np.int64) for run in runs]
    return found, len(numbers)


def distinct_sets(units: Sequence[Ints]) -> set[frozenset[int]]:
    """The different sets of units that are tested; runs of one test set are one."""
    return {frozenset(run.tolist()) for run in units}


def strata(units: Sequence[Ints]) -> list[Ints]:
    """The units of each test set; runs that share a unit share a test set."""
    found: list[set[int]] = []
    for run in units:
        members = set(run.tolist())
        shared = [stratum for stratum in found if stratum & members]
        found = [stratum for stratum in found if not stratum & members] + [members.union(*shared)]
    return [np.array(sorted(stratum), np.int64) for stratum in found]


def drawn(rng: np.random.Generator, strata: Sequence[Ints], batch: int, count: int) -> NDArray[np.float64]:
    """The number of draws of each unit (B, units); each stratum is resampled with as many draws as it has units."""
    times = np.zeros((batch, count))
    for stratum in strata:
        size = len(stratum)
        cells = rng.integers(size, size=(batch, size)) + size * np.arange(batch)[:, None]  # (B, size)
        times[:, stratum] = np.bincount(cells.ravel(), minlength=batch * size).reshape(batch, size)
    return times
