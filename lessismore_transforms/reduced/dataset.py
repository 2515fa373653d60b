"""The slices of a selection as a data set for any DataLoader."""

from __future__ import annotations

import copy
import hashlib
import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.errors import ManifestError, UserError
from lessismore_transforms.reduced.clusters import cluster_numbers
from lessismore_transforms.reduced.grey_statistics import pooled
from lessismore_transforms.reduced.manifest import Manifest, candidates, read_reduction
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduced.store import STORE, find_again, last_dataset_dir, read_pixels, stored_rows
from lessismore_transforms.reduced.table_files import open_array, parse_slice_id
from lessismore_transforms.volumes import Volume
from lessismore_transforms.wording import counted, plural

_OPEN_FILES = 256
_AGAIN = "`reduce` run again, or `select --fill_store`, makes it again"


class SliceSelectionDataset:
    """The slices of a selection as `{"image": uint8 tensor (1, rows, columns), "slice_id": str}`, for any DataLoader.

    `dataset[:100]`, `subset` and `split` give data sets of some of the slices; nothing is copied.

    Pixels come from memory-mapped files that each process opens when it needs them, so a pickled data set carries none
    and every loader worker shares the same pages. The tables are read once, at the beginning: all that is asked of them
    later is of the same state as the items.

    Args:
        outputs: one output folder of `reduce`, or several.
        selection: the selection's name, the same in each output.
        transform: called with each item; a MONAI `Compose`, for instance.
        dataset_dir: where the volumes are, for slices that are not in the store; by default the folder that was
            reduced. With several outputs, one folder for all of them or None.
        removed: the slices that the selection removed as well, each in the cluster of the kept slice that stands for
            it; all of them have to be in the store.

    Attributes:
        clusters: int64 (n,), the number of each item's cluster; without `removed` each is one of its own.
        patients: the patient of each item, as the manifest names it: a keyed hash unless ids were asked for.
        positions_mm: float (n,), the place of each item in its volume.

    Raises:
        ManifestError: an output is incomplete or damaged, or has no such selection; or, with `removed`, the store
            lacks some of the slices.
        UserError: the selection does not tell which slice stands for a removed one.
    """

    def __init__(
        self,
        outputs: str | Path | Sequence[str | Path],
        selection: str = "default",
        transform: Callable[[dict[str, Any]], Any] | None = None,
        *,
        dataset_dir: str | Path | None = None,
        removed: bool = False,
    ) -> None:
        self.transform, self.selection, self.removed = transform, selection, removed
        self._folders = [Path(output) for output in ([outputs] if isinstance(outputs, (str, Path)) else outputs)]
        self._dataset_dir = None if dataset_dir is None else Path(dataset_dir)
        self._settings: list[dict[str, Any]] = []
        self._sums: list[dict[str, str]] = []  # CRC32 of each volume, by output
        self._sizes: list[dict[str, tuple[int, int]]] = []  # rows and columns of each volume, by output
        self._stores: list[dict[str, Any] | None] = []  # mean and deviation of what is stored, by output
        self._items: list[tuple[int, str, int]] = []  # output, slice_id, row in the store or -1
        hashes, positions = [np.zeros(0, np.uint64)], [np.zeros(0)]
        self.patients: list[str] = []
        leads: list[str] = []  # the slice that stands for each item, where the removed ones are there too
        for number, folder in enumerate(self._folders):
            manifest, chosen = read_reduction(folder, selection)
            rows = stored_rows(manifest, chosen if selection == "default" else None)
            chosen_rows = chosen.rows(removed=removed)
            table = manifest.slices.loc[chosen_rows]
            items = [(number, name, rows.get(name, -1)) for name in table["slice_id"]]
            lacking = sum(row < 0 for _, _, row in items)
            if removed:
                _check_members(folder, selection, manifest, chosen, lacking)
                leads += chosen.slices.loc[chosen_rows, "kept_by"].tolist()
            elif lacking:
                warnings.warn(
                    f"{lacking} of {counted(len(items), 'slice')} of {selection!r} {plural(lacking, 'is', 'are')} not "
                    f"in the store of {folder}: reading {plural(lacking, 'it', 'them')} from the volumes is slow, "
                    f"`select --fill_store` puts {plural(lacking, 'it', 'them')} there",
                    stacklevel=2,
                )
            self._settings.append(manifest.settings)
            self._sums.append({record["volume"]: record["crc32"] for record in manifest.volumes})
            self._sizes.append({record["volume"]: (record["height"], record["width"]) for record in manifest.volumes})
            self._stores.append(manifest.info.get("store"))
            self._items += items
            hashes.append(table["hash"].to_numpy(np.uint64))
            positions.append(table["position_mm"].to_numpy(np.float64))
            of_volume = {record["volume"]: record["patient"] for record in manifest.volumes}
            self.patients += [of_volume[parse_slice_id(name)[0]] for _, name, _ in items]
        if len({*self.slice_ids}) < len(self._items):
            raise ManifestError(
                f"expected outputs of different volumes, found the same slices in several of {outputs}: name each once"
            )
        self.clusters = cluster_numbers(self.slice_ids, leads) if removed else np.arange(len(self._items))
        self._hashes, self.positions_mm = np.concatenate(hashes), np.concatenate(positions)
        self._opened: OrderedDict[tuple[int, str], NDArray[np.uint8]] = OrderedDict()
        self._volumes: dict[int, dict[str, Volume]] = {}
        self._read: tuple[tuple[int, str] | None, dict[int, NDArray[np.uint8]]] = (None, {})

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int | slice) -> Any:
        """An item; a data set of some of them, for a slice."""
        import torch  # not needed to look at a selection

        if isinstance(index, slice):
            return self.subset(range(len(self))[index])
        item = {"image": torch.from_numpy(self.picture(index)[None]), "slice_id": self.slice_id(index)}
        return item if self.transform is None else self.transform(item)

    def __repr__(self) -> str:
        volumes, patients = len({*self.volumes}), len({*self.patients})
        folders = ", ".join(str(folder) for folder in self._folders)
        return (
            f"SliceSelectionDataset({counted(len(self), 'slice')} of {counted(volumes, 'volume')} and "
            f"{counted(patients, 'patient')}, selection {self.selection!r} of {folders})"
        )

    def picture(self, index: int) -> NDArray[np.uint8]:
        """The pixels of an item, uint8 (rows, columns), before the transform; a copy."""
        number, name, row = self._items[index]
        return np.array(self._stored(number, name, row) if row >= 0 else self._direct(number, name))

    def slice_id(self, index: int) -> str:
        """The name of an item's slice; `slice_ids` makes the list of all each time."""
        return self._items[index][1]

    def subset(self, indices: Sequence[int]) -> SliceSelectionDataset:
        """The items of these indices as a data set, in their order."""
        part = copy.copy(self)
        part.__dict__ |= part.__getstate__()
        part._items = [self._items[index] for index in indices]
        part.patients = [self.patients[index] for index in indices]
        places = np.asarray(indices, np.int64)
        part._hashes, part.positions_mm = self._hashes[places], self.positions_mm[places]
        part.clusters = np.unique(self.clusters[places], return_inverse=True)[1].astype(np.int64)
        return part

    def split(self, *shares: float, by: str = "patient", seed: int = 0) -> list[SliceSelectionDataset]:
        """The data set in parts of about these shares of its patients (or volumes, or slices), none in two parts.

        Args:
            shares: of the parts, above 0; 0.8 and 0.2 are the same as 4 and 1.
            by: what is never divided: `patient`, `volume` or `slice`.
            seed: of the draw.

        Raises:
            UserError: there are fewer patients (or volumes, or slices) than parts, or a share or `by` makes no sense.
        """
        units = {"patient": self.patients, "volume": self.volumes, "slice": self.slice_ids}.get(by)
        if units is None:
            raise UserError(f"expected to split by patient, volume or slice, found {by!r}: give one of these")
        if not shares or min(shares) <= 0:
            raise UserError(
                f"expected shares above 0, such as 0.8 and 0.2, found {list(shares)}: give one for each part"
            )
        names = list(dict.fromkeys(units))
        if len(names) < len(shares):
            raise UserError(
                f"expected a {by} or more for each of {len(shares)} parts, found {len(names)}: take fewer parts"
            )
        ends = np.round(np.cumsum(shares) / sum(shares) * len(names)).astype(int)
        ends = np.maximum.accumulate(np.maximum(ends, np.arange(1, len(shares) + 1)))  # one at least
        ends = np.minimum(ends, len(names) - np.arange(len(shares))[::-1])
        order = np.random.default_rng(seed).permutation(len(names)).tolist()
        part_of = {names[place]: int(np.searchsorted(ends, rank, "right")) for rank, place in enumerate(order)}
        return [
            self.subset([index for index, unit in enumerate(units) if part_of[unit] == part])
            for part in range(len(shares))
        ]

    @property
    def volumes(self) -> list[str]:
        """The volume of each item."""
        return [parse_slice_id(name)[0] for _, name, _ in self._items]

    @property
    def volume_weights(self) -> NDArray[np.float64]:
        """Weights (n,) for a `WeightedRandomSampler` that draws all volumes equally often."""
        _, member, counts = np.unique(self.volumes, return_inverse=True, return_counts=True)
        weights: NDArray[np.float64] = 1 / (len(counts) * counts[member])
        return weights

    @property
    def outputs(self) -> list[Path]:
        """The output folders."""
        return list(self._folders)

    @property
    def slice_ids(self) -> list[str]:
        """The name of each item's slice."""
        return [name for _, name, _ in self._items]

    @property
    def cluster_count(self) -> int:
        """Number of clusters: that of the kept slices."""
        return int(self.clusters.max(initial=-1)) + 1

    def identity(self) -> str:
        """64 hex digits that tell these slices, in this order, with these pixels and in these clusters, from others."""
        digest = hashlib.sha256()
        for number, name, _ in self._items:
            crc32 = self._sums[number][parse_slice_id(name)[0]]
            digest.update(f"{name} {crc32} {self._settings[number].get('pixels')}\n".encode())
        if self.removed:
            digest.update(self.clusters.astype("<i8").tobytes())
        return digest.hexdigest()

    def hashes(self) -> NDArray[np.uint64]:
        """The difference hash of each item."""
        return self._hashes

    def smallest(self) -> tuple[int, int]:
        """Rows and columns of the item with the fewest pixels.

        Raises:
            UserError: the selection keeps nothing.
        """
        found = dict.fromkeys((number, parse_slice_id(name)[0]) for number, name, _ in self._items)
        if not found:
            folders = ", ".join(map(str, self._folders))
            raise UserError(f"expected slices in the selection {self.selection!r} of {folders}, found none: keep more")
        return min((self._sizes[number][volume] for number, volume in found), key=math.prod)

    def mean_std(self) -> tuple[float, float]:
        """Mean and standard deviation of the grey values (0..1) in the stores of the outputs, pooled by pixels.

        They are those of the stored slices of each output's own selection, whichever selection is trained on.

        Raises:
            ManifestError: an output does not tell.
        """
        found = []
        for folder, statistics in zip(self._folders, self._stores, strict=True):
            if not statistics or not statistics["std"] > 0:
                raise ManifestError(
                    f"{folder / 'manifest.json'} tells no mean and standard deviation of stored slices: reduce again "
                    "with this version, or give mean and std"
                )
            found.append(statistics)
        return pooled(found)

    @property
    def unstored(self) -> int:
        """Number of items whose pixels are read from the volumes, because no store holds them."""
        return sum(row < 0 for _, _, row in self._items)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": OrderedDict(), "_volumes": {}, "_read": (None, {})}

    def _stored(self, number: int, name: str, row: int) -> NDArray[np.uint8]:
        key = (number, parse_slice_id(name)[0])
        if key not in self._opened:
            path = self._folders[number] / STORE / f"{key[1]}.npy"
            if not path.is_file():
                raise ManifestError(f"{path} is missing: {_AGAIN}")
            self._opened[key] = open_array(path, _AGAIN)
            if len(self._opened) > _OPEN_FILES:  # each holds a file descriptor, of which many systems give 1024
                self._opened.popitem(last=False)
        self._opened.move_to_end(key)
        array, size = self._opened[key], self._sizes[number][key[1]]
        if array.dtype != np.uint8 or array.shape[1:] != size or row >= len(array):
            path = self._folders[number] / STORE / f"{key[1]}.npy"
            raise ManifestError(
                f"{path} holds {array.dtype} of shape {array.shape}, expected uint8 and more than "
                f"{counted(row, 'slice')} of {size[0]} x {size[1]}: {_AGAIN}"
            )
        picture: NDArray[np.uint8] = array[row]
        return picture

    def _direct(self, number: int, name: str) -> NDArray[np.uint8]:
        """A slice from its volume; the selected slices of the volume read last are kept, for reading in order."""
        volume, index = parse_slice_id(name)
        if self._read[0] != (number, volume):
            folder = self._dataset_dir or last_dataset_dir(self._folders[number])
            if number not in self._volumes:
                self._volumes[number] = find_again(Manifest.read(self._folders[number]), folder)
            indices = [
                parse_slice_id(other)[1]
                for which, other, row in self._items
                if which == number and row < 0 and other.startswith(volume)
            ]
            found, settings = self._volumes[number][volume], self._settings[number]
            size, crc32 = self._sizes[number][volume], self._sums[number][volume]
            pixels = read_pixels(found, folder, settings, indices, size=size, crc32=crc32)
            self._read = ((number, volume), dict(zip(indices, pixels, strict=True)))
        return self._read[1][index]


def _check_members(folder: Path, selection: str, manifest: Manifest, chosen: Selection, lacking: int) -> None:
    """Refuse a selection whose clusters are unknown or not whole in the store."""
    if alone := int((candidates(manifest.slices) & ~chosen.rows(removed=True)).sum()):
        raise UserError(
            f"expected a selection that tells which slice stands for each removed one, found {selection!r} of "
            f"{folder}, which removed {counted(alone, 'slice')} without comparing ({chosen.target}): take one that "
            f"compares, such as that of `select {folder} --threshold 6 --name hash6`"
        )
    if lacking:
        raise ManifestError(
            f"expected the slices that {selection!r} removed in the store of {folder}, too, found that "
            f"{counted(lacking, 'slice')} {plural(lacking, 'is', 'are')} not there: "
            f"`select {folder} --method all --name all --fill_store` puts {plural(lacking, 'it', 'them')} there"
        )
