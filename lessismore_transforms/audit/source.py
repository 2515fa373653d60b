"""What an audit reads of an output of the reduction: all its slices, and what each selection keeps of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.manifest import Manifest, candidates
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduced.store import stored_rows
from lessismore_transforms.wording import counted

if TYPE_CHECKING:
    import pandas as pd

Ints = NDArray[np.int64]
ALL = "ALL"


@dataclass(frozen=True, eq=False)
class Source:
    """The slices of an output.

    Args:
        slices: N rows of the manifest, those that can be kept.
        kept: for ALL and each selection that leaves slices out, its name and target in words, and which slices (N,).
        dataset: the n slices whose pictures are looked at.
        rows: (n,), which of the N these are, whole volumes.
    """

    slices: pd.DataFrame
    kept: dict[tuple[str, str], NDArray[np.bool_]]
    dataset: SliceSelectionDataset
    rows: Ints

    @property
    def seen(self) -> pd.DataFrame:
        """The rows of the slices whose pictures are looked at."""
        return self.slices.iloc[self.rows].reset_index(drop=True)


def open_source(output_dir: Path, most: int, *, seed: int) -> Source:
    """The slices of an output.

    Args:
        output_dir: of `reduce`.
        most: slices after which no further volume is drawn.
        seed: of the draw of volumes, at first one of each patient.

    Raises:
        ManifestError: the output is incomplete or damaged.
        UserError: the store lacks slices, or there are fewer than two.
    """
    manifest = Manifest.read(output_dir)
    there = candidates(manifest.slices)
    slices = manifest.slices[there].reset_index(drop=True)
    if len(slices) < 2:
        raise UserError(f"expected 2 slices or more in {output_dir}, found {len(slices)}: reduce more volumes")
    names = sorted(path.stem for path in (output_dir / "selections").glob("*.json"))
    kept: dict[tuple[str, str], NDArray[np.bool_]] = {(ALL, "all slices"): np.ones(len(slices), bool)}
    whole = []
    for name in names:
        selection = manifest.read_selection(name)
        chosen = selection.rows()[there]
        if chosen.all():
            whole.append(name)
        elif chosen.sum() > 1:
            kept[name, str(selection.target)] = chosen
    rows = _drawn(slices, most, seed)
    dataset = _pictures(output_dir, manifest, slices, whole).subset(rows.tolist())
    return Source(slices, kept, dataset, rows)


def _pictures(output_dir: Path, manifest: Manifest, slices: pd.DataFrame, whole: list[str]) -> SliceSelectionDataset:
    """All slices, by a selection that keeps them.

    Raises:
        UserError: there is no such selection, or the store lacks some of them.
    """
    do = f"`select {output_dir} --method all --name all --fill_store`"
    if not whole:
        raise UserError(f"expected a selection of {output_dir} that keeps every slice, found none: {do} makes it")
    default = Selection.read(output_dir, "default")
    stored = stored_rows(manifest, default)
    if lacking := sum(name not in stored for name in slices["slice_id"]):
        raise UserError(
            f"expected all slices in the store of {output_dir}, found that {counted(lacking, 'slice')} of "
            f"{len(slices):,} are not there: {do} puts them there"
        )
    return SliceSelectionDataset(output_dir, whole[0])


def _drawn(slices: pd.DataFrame, most: int, seed: int) -> Ints:
    """Rows of whole volumes, drawn at random until there are `most` slices: one of each patient, then a second, ...

    There are two patients at least, where the output has them.
    """
    volumes = slices.groupby("volume", sort=False)
    members = list(volumes.indices.values())
    patients = volumes["patient"].first().tolist()
    order = np.random.default_rng(seed).permutation(len(members)).tolist()
    turns: dict[str, int] = {}
    turn = [0] * len(members)
    for place in order:
        turn[place] = turns[patients[place]] = turns.get(patients[place], -1) + 1
    chosen: list[Ints] = []
    for place in sorted(order, key=lambda place: turn[place]):  # a stable sort
        if len(chosen) > 1 and sum(map(len, chosen)) >= most:
            break
        chosen.append(members[place])
    rows: Ints = np.sort(np.concatenate(chosen)).astype(np.int64)
    return rows
