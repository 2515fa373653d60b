"""Redundancy across the volumes of a patient, of a data set or of several.

The exemplar rule of the released scripts is applied to all slices of a patient or of whole data sets (the released
AllData script), where `Manifest.select` stays inside each volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduced.manifest import Manifest, candidates, record_order
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduction.neighbours import exemplars_of_hashes
from lessismore_transforms.reduction.selection import exemplar_walk
from lessismore_transforms.reduction.target import Target

ORDERS = ("thinnest", "manifest")


def select_across(
    manifests: Sequence[Manifest],
    threshold: float,
    *,
    scope: str = "all",
    order: str | npt.ArrayLike = "thinnest",
) -> list[Selection]:
    """Keep each slice that no slice kept before it, in its volume, of its patient or anywhere, is close to.

    Which slice of a group survives depends on the order of the walk: `thinnest` goes through the volumes by slice
    spacing, the thinnest first, equal ones in the order of the manifests, and through a volume by position (by
    released name where it was reduced so); `manifest` takes the volumes as the manifests list them. Slices that could
    not be read take no part. `Manifest.select` gives the same as the scope `volume`.

    Args:
        manifests: of one output folder or several.
        threshold: a slice goes at a distance <= this, in whole bits of 64.
        scope: `volume`, `patient` or `all`, what a slice is compared with.
        order: `thinnest`, `manifest`, or every row (n,) of the manifests, one after the other, in the order of the
            walk; `manifest.slices["path"].argsort(kind="stable")` is that of the released AllData script for PNG.

    Returns:
        A selection per manifest; `kept_by` may name a slice of another volume, patient or manifest.

    Raises:
        UserError: an unknown scope or order, a threshold out of range, or patients hashed with different keys.
    """
    import pandas as pd

    target = Target.of(threshold=threshold, rule="exemplars", scope=scope)
    if scope == "patient" and len(found := {manifest.settings["patients"] for manifest in manifests}) > 1:
        raise UserError(f"expected the same patient key, found {', '.join(sorted(found))}: reduce with one key")
    records = [record for manifest in manifests for record in manifest.volumes]
    slices = pd.concat([manifest.slices for manifest in manifests], ignore_index=True)
    names, hashes = slices["slice_id"].to_numpy(dtype=object), slices["hash"].to_numpy()

    members = {
        "volume": list(range(len(records))),
        "patient": [record["patient"] for record in records],
        "all": [0] * len(records),
    }
    group = np.repeat(pd.factorize(np.array(members[scope]))[0], [record["slices"] for record in records])
    walk = _walk(records, candidates(slices), order)
    walk = walk[np.argsort(group[walk], kind="stable")]

    kept = np.zeros(len(slices), dtype=bool)
    kept_by, distance = np.full(len(slices), "", dtype=object), np.full(len(slices), np.nan)
    for rows in np.split(walk, np.flatnonzero(np.diff(group[walk])) + 1):
        result = exemplars_of_hashes(hashes[rows], int(threshold))
        kept[rows] = result.kept
        kept_by[rows] = np.where(result.kept, "", names[rows[result.kept_by]])
        distance[rows] = np.where(result.kept, np.nan, result.distance)
    table = pd.DataFrame({"slice_id": names, "kept": kept, "kept_by": kept_by, "distance": distance})
    stops = np.cumsum([len(manifest.slices) for manifest in manifests])
    return [
        Selection(table.iloc[stop - len(manifest.slices) : stop].reset_index(drop=True), target)
        for manifest, stop in zip(manifests, stops, strict=True)
    ]


def _walk(
    records: Sequence[dict[str, Any]], candidate: npt.NDArray[np.bool_], order: str | npt.ArrayLike
) -> npt.NDArray[np.int64]:
    """The rows of slices that can be kept, in the order of the walk."""
    if not isinstance(order, str):
        rows = np.asarray(order, np.int64)
        if not np.array_equal(np.sort(rows), np.arange(len(candidate))):
            raise UserError(f"expected an order that names each of 0..{len(candidate) - 1} once: take it from all rows")
        return exemplar_walk(candidate, rows)
    if order not in ORDERS:
        raise UserError(f"expected an order out of {', '.join(ORDERS)} or one of rows, found {order!r}")
    turns = list(range(len(records)))
    if order == "thinnest":
        turns.sort(key=lambda turn: float(records[turn]["spacing_mm"][0]))  # stable
    stops = np.cumsum([0, *(record["slices"] for record in records)])
    walks = [np.empty(0, np.int64)]
    for turn in turns:
        start, stop = stops[turn : turn + 2]
        walks.append(start + exemplar_walk(candidate[start:stop], record_order(records[turn])))
    return np.concatenate(walks)
