"""The kept slices on disk: `store/<volume>.npy`, uint8 (k, rows, columns).

A run stores the slices of a volume that its default selection keeps, in index order; `fill_store` appends those that a
later selection wants, and names all of that volume in `store/filled.json`. `store/index.csv` says the same to people
and other programs; nothing here reads it.
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.atomic import atomic_write, lock, write_json, writing
from lessismore_transforms.errors import ManifestError, VolumeError, reading
from lessismore_transforms.progress import progress_bar
from lessismore_transforms.reduced.manifest import Manifest, changed_tables
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduced.table_files import open_array, parse_slice_id, read_record, slice_id
from lessismore_transforms.reduction.intensity import pixel_sums
from lessismore_transforms.volumes import Crc32, Volume, find_volumes, read_slices
from lessismore_transforms.volumes.pixels import to_pixels
from lessismore_transforms.wording import counted, plural

STORE = "store"
_FILLED = "filled.json"
THUMBNAILS = f"{STORE}/thumbnails"
RUN_LOG = "run.jsonl"  # what happened when, and where the volumes were


def write_volume(output_dir: Path, volume: str, pixels: NDArray[np.uint8]) -> None:
    """Store the slices of one volume, uint8 (k, rows, columns) in index order."""
    with atomic_write(output_dir / STORE / f"{volume}.npy", "wb", durable=False) as file:
        np.save(file, pixels)


def write_pictures(
    output_dir: Path, volume: str, pictures: Iterable[NDArray[np.uint8]], shape: tuple[int, int, int]
) -> dict[str, Any]:
    """The same from pictures (rows, columns) that come one by one; `shape` (k, rows, columns) is known before.

    Returns:
        What the volume's record holds of them: CRC32 of the pixels, their sum and that of their squares.
    """
    crc, total, squares = Crc32(), 0, 0
    with atomic_write(output_dir / STORE / f"{volume}.npy", "wb", durable=False) as file:
        file.write(_header(shape))
        for picture in pictures:
            file.write(picture.data)
            crc.update(picture.data)
            more, more_squares = pixel_sums(picture)
            total, squares = total + more, squares + more_squares
    return {"slices": shape[0], "crc32": str(crc), "sum": total, "squares": squares}


def _header(shape: tuple[int, ...]) -> bytes:
    """What an npy file of grey values begins with, as `numpy.save` writes it."""
    begin = io.BytesIO()
    np.lib.format.write_array_header_1_0(begin, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return begin.getvalue()


def count_intact(output_dir: Path, record: Mapping[str, Any], filled: Mapping[str, Any]) -> int | None:
    """How many pictures the store of a volume holds; None where they are missing or not as they were written.

    Args:
        output_dir: output folder of `reduce`.
        record: the volume's, as manifest.json holds it.
        filled: what `read_filled` says.
    """
    path = output_dir / STORE / f"{record['volume']}.npy"
    try:
        array = open_array(path)
    except ManifestError:
        return None
    if array.dtype != np.uint8 or array.shape[1:] != (record["height"], record["width"]):
        return None
    with path.open("rb") as file:
        header = _header(array.shape)
        if file.read(len(header)) != header:
            return None
    sums = [str(record["store"]["crc32"])] if len(array) == record["store"]["slices"] else []
    if (entry := filled.get(record["volume"])) and len(entry["indices"]) == len(array):
        sums.append(entry["crc32"])
    return len(array) if sums and _pixels_crc32(array) in sums else None


def changed_stores(manifest: Manifest) -> list[str]:
    """The files of the store whose pictures are missing or are not as they were written; each is read.

    Raises:
        ManifestError: the tables are missing or were changed since they were written.
    """
    filled, stored = read_filled(manifest.folder), stored_slices(manifest)
    return [
        f"{STORE}/{record['volume']}.npy"
        for record in progress_bar(manifest.volumes, desc="check store", unit=" volumes")
        if not _is_whole(manifest.folder, record, filled, stored)
    ]


def _is_whole(
    output_dir: Path, record: Mapping[str, Any], filled: Mapping[str, Any], stored: Mapping[str, Sequence[int]]
) -> bool:
    wanted = len(stored[record["volume"]])
    return not wanted or count_intact(output_dir, record, filled) == wanted


def read_filled(output_dir: Path) -> dict[str, dict[str, Any]]:
    """Indices and CRC32 of all stored pictures of each volume to which `fill_store` added some, in the order of rows.

    Nothing where the file was damaged: what was added is not trusted then, and is made again.
    """
    path = output_dir / STORE / _FILLED
    if not path.is_file():
        return {}
    with suppress(ManifestError):
        return {name: entry for name, entry in read_record(path).items() if _is_filled(entry)}
    return {}


def _is_filled(entry: Any) -> bool:
    if not isinstance(entry, dict) or entry.keys() != {"indices", "crc32"} or not isinstance(entry["indices"], list):
        return False
    indices = entry["indices"]
    return all(type(index) is int for index in indices) and len({*indices}) == len(indices)


def write_filled(output_dir: Path, filled: Mapping[str, Any]) -> None:
    """Write what `read_filled` reads; no file where no store was made longer."""
    path = output_dir / STORE / _FILLED
    if filled:
        write_json(path, dict(sorted(filled.items())))
    else:
        path.unlink(missing_ok=True)


def _pixels_crc32(array: NDArray[Any]) -> str:
    """CRC32 of pictures (k, rows, columns), one after the other."""
    crc = Crc32()
    for part in array:
        crc.update(np.ascontiguousarray(part).data)
    return str(crc)


def write_index(output_dir: Path, stored: Iterable[tuple[str, Sequence[int]]]) -> None:
    """Name the slices of the store: the volumes in the order of the manifest, each with its indices."""
    with atomic_write(output_dir / STORE / "index.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("slice_id", "row"))
        for volume, indices in stored:
            writer.writerows((slice_id(volume, index), row) for row, index in enumerate(indices))


def stored_slices(manifest: Manifest, default: Selection | None = None) -> dict[str, list[int]]:
    """The indices of the slices in each volume's store, in the order of their rows; none where there is no store.

    Args:
        manifest: of the output.
        default: its default selection, where that has been read already.

    Raises:
        ManifestError: the tables are missing or were changed since they were written.
    """
    folder = manifest.folder
    if damaged := changed_tables(folder, manifest.info):
        raise ManifestError(
            f"{folder / damaged[0]} was changed since it was written, so that it no longer tells which slices are in "
            "the store: undo the edit or reduce again"
        )
    stored: dict[str, list[int]] = {record["volume"]: [] for record in manifest.volumes}
    if not (folder / STORE).is_dir():
        return stored
    for name in (manifest.read_selection() if default is None else default).kept_ids:
        volume, index = parse_slice_id(name)
        stored[volume].append(index)
    filled = read_filled(folder)
    return {volume: with_filled(filled.get(volume), indices) for volume, indices in stored.items()}


def with_filled(entry: Mapping[str, Any] | None, chosen: list[int]) -> list[int]:
    """The stored slices of a volume: those of its default selection, or all that an entry of `read_filled` names.

    A volume that was reduced again may have another selection than when its entry was written.
    """
    if entry is None or entry["indices"][: len(chosen)] != chosen:
        return chosen
    indices: list[int] = entry["indices"]
    return indices


def stored_rows(manifest: Manifest, default: Selection | None = None) -> dict[str, int]:
    """Row in its volume's array of every stored slice; arguments and errors as of `stored_slices`."""
    stored = stored_slices(manifest, default).items()
    return {slice_id(volume, index): row for volume, indices in stored for row, index in enumerate(indices)}


def last_dataset_dir(output_dir: Path) -> Path:
    """The data set's folder that the last run into `output_dir` read, from run.jsonl.

    Raises:
        ManifestError: run.jsonl does not tell.
    """
    log = output_dir / RUN_LOG
    folders = []
    if log.is_file():
        with reading(log, ManifestError):
            lines = log.read_text(encoding="utf-8").splitlines()
        for line in lines:
            with suppress(ValueError, RecursionError):  # a killed run may have left half a line
                event = json.loads(line)
                if isinstance(event, dict) and isinstance(event.get("dataset_dir"), str):
                    folders.append(event["dataset_dir"])
    if not folders:
        raise ManifestError(f"{log} does not tell where the volumes are: give dataset_dir")
    return Path(folders[-1])


def find_again(manifest: Manifest, dataset_dir: Path) -> dict[str, Volume]:
    """The volumes of a manifest in the data set's folder, by their ids.

    Raises:
        ManifestError: some are no longer there.
    """
    settings = manifest.settings
    found = find_volumes(
        dataset_dir,
        include=settings["include"],
        patterns=settings["patterns"],
        stored=settings["as_released"],
    )
    volumes = {volume.volume: volume for volume in found.volumes}
    missing = [record["path"] for record in manifest.volumes if record["volume"] not in volumes]
    if missing:
        raise ManifestError(
            f"{counted(len(missing), 'volume')} of the manifest (the first: {missing[0]}) "
            f"{plural(len(missing), 'is', 'are')} not below {dataset_dir}: "
            "name the folder that was reduced with dataset_dir"
        )
    return volumes


def read_pixels(
    volume: Volume,
    dataset_dir: Path,
    settings: Mapping[str, Any],
    indices: Iterable[int],
    *,
    size: tuple[int, int],
    crc32: str,
) -> NDArray[np.uint8]:
    """Training pixels (k, rows, columns) of some slices of a volume, in the order of `indices`, read from its files.

    Args:
        volume: as it is found now.
        dataset_dir: the folder that was reduced.
        settings: of the manifest.
        indices: of the slices.
        size: rows and columns of the volume's slices in the manifest.
        crc32: checksum of the volume's files in the manifest.

    Raises:
        VolumeError: the volume cannot be read.
        ManifestError: one of the slices cannot be read, or the files are not those that were reduced.
    """
    changed = f"{volume.path} changed since it was reduced: reduce again"
    if volume.shape[1:] != size:
        raise ManifestError(changed)
    indices = list(indices)
    wanted = set(indices)
    pictures: dict[int, NDArray[np.uint8]] = {}
    crc = Crc32()
    with reading(dataset_dir / volume.path, VolumeError):
        for ct_slice in read_slices(volume, dataset_dir, crc, memory_mb=None):  # slices of this size were reduced
            if ct_slice.index in wanted:
                if ct_slice.reason:
                    raise ManifestError(f"slice {ct_slice.index} can no longer be read: {ct_slice.reason}")
                _, pictures[ct_slice.index] = to_pixels(
                    ct_slice, volume.format, settings["pixels"], as_released=settings["as_released"]
                )
    if crc32 != str(crc):
        raise ManifestError(changed)
    return np.stack([pictures[index] for index in indices])


def fill_store(output_dir: str | Path, selection: Selection, dataset_dir: str | Path | None = None) -> int:
    """Read the slices of a selection that the store lacks from their volumes, lost files too; returns their number.

    Rows that are there keep their place, so a store is valid whenever this is interrupted.

    Args:
        output_dir: output folder of `reduce`.
        selection: what the store has to hold.
        dataset_dir: the folder that was reduced; by default the one in run.jsonl.

    Raises:
        ManifestError: the volumes are not there.
        VolumeError: a volume cannot be read or changed since.
    """
    output_dir = Path(output_dir)
    with writing(output_dir):
        log = (output_dir / RUN_LOG).open("a", encoding="utf-8")
    with log:
        lock(log, output_dir)
        return _fill_store(output_dir, selection, dataset_dir)


def _fill_store(output_dir: Path, selection: Selection, dataset_dir: str | Path | None) -> int:
    manifest, filled = Manifest.read(output_dir), read_filled(output_dir)
    stored = stored_slices(manifest)
    lacking: dict[str, list[int]] = defaultdict(list)
    for record in manifest.volumes:
        volume = record["volume"]
        if not _is_whole(output_dir, record, filled, stored):
            lacking[volume], stored[volume] = stored[volume], []  # the default selection first, as a run writes it
    there = {volume: {*indices, *lacking[volume]} for volume, indices in stored.items()}
    for name in selection.kept_ids:
        volume, index = parse_slice_id(name)
        if index not in there[volume]:
            lacking[volume].append(index)
    lacking = {volume: indices for volume, indices in lacking.items() if indices}
    if not lacking:
        return 0
    folder = last_dataset_dir(output_dir) if dataset_dir is None else Path(dataset_dir)
    volumes = find_again(manifest, folder)
    records = {record["volume"]: record for record in manifest.volumes}
    for volume, indices in progress_bar(lacking.items(), desc="fill store", unit=" volumes"):
        record = records[volume]
        size, crc32 = (record["height"], record["width"]), record["crc32"]
        pixels = read_pixels(volumes[volume], folder, manifest.settings, indices, size=size, crc32=crc32)
        path = output_dir / STORE / f"{volume}.npy"
        if stored[volume]:
            pixels = np.concatenate([open_array(path), pixels])
        write_volume(output_dir, volume, pixels)
        stored[volume] += indices
        filled[volume] = {"indices": stored[volume], "crc32": _pixels_crc32(pixels)}
        write_filled(output_dir, filled)
    write_index(output_dir, stored.items())
    return sum(map(len, lacking.values()))
