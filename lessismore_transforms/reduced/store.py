"""The kept slices on disk: `store/<volume>.npy`, uint8 (k, rows, columns), named by `store/index.csv`.

A run stores a volume's slices in index order; `fill_store` appends those that a later selection wants.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lessismore_transforms.atomic import atomic_write, lock, write_json, writing
from lessismore_transforms.errors import ManifestError, VolumeError, reading
from lessismore_transforms.reduced.manifest import Manifest
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduced.table_files import open_array, parse_slice_id, read_record, slice_id
from lessismore_transforms.reduction.intensity import pixel_sums
from lessismore_transforms.volumes import Crc32, Volume, find_volumes, read_slices
from lessismore_transforms.volumes.pixels import to_pixels
from lessismore_transforms.wording import counted, plural

STORE = "store"
_FILLED = "filled.json"
_NAME = re.compile(r"[0-9a-f]{16}_\d{4,9}")  # of a slice
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
    written = (record["store"], filled.get(record["volume"]))
    sums = [stored["crc32"] for stored in written if stored and stored["slices"] == len(array)]
    return len(array) if sums and _pixels_crc32(array) in map(str, sums) else None


def read_filled(output_dir: Path) -> dict[str, dict[str, Any]]:
    """Number and CRC32 of the pictures of each volume whose store `fill_store` made longer than its run did.

    None where the file was damaged: the pictures are not trusted then, and are made again.
    """
    path = output_dir / STORE / _FILLED
    if not path.is_file():
        return {}
    with suppress(ManifestError):
        entries = read_record(path).items()
        return {
            name: entry for name, entry in entries if isinstance(entry, dict) and entry.keys() == {"slices", "crc32"}
        }
    return {}


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


def read_index(output_dir: Path) -> dict[str, int]:
    """Row in its volume's array of every stored slice; empty where there is no store."""
    path = output_dir / STORE / "index.csv"
    if not path.is_file():
        return {}
    with reading(path, ManifestError), path.open(encoding="utf-8", newline="") as file:
        rows: dict[str, int] = {}
        lines = csv.reader(file)
        for line, cells in enumerate(lines, start=1):
            if line == 1 and cells == ["slice_id", "row"]:
                continue
            if line == 1 or len(cells) != 2 or not _NAME.fullmatch(cells[0]) or not cells[1].isdecimal():
                raise ManifestError(f"{path}, line {line}, was damaged: undo the edit or reduce again")
            rows[cells[0]] = int(cells[1])
        return rows


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
            with suppress(ValueError):  # a killed run may have left half a line
                folders += [event["dataset_dir"]] if "dataset_dir" in (event := json.loads(line)) else []
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
    volume: Volume, dataset_dir: Path, settings: Mapping[str, Any], indices: Iterable[int], crc32: str | None = None
) -> NDArray[np.uint8]:
    """Training pixels (k, rows, columns) of some slices of a volume, in the order of `indices`, read from its files.

    Raises:
        VolumeError: the volume cannot be read.
        ManifestError: one of the slices cannot be read, or the files are not those with the checksum `crc32`.
    """
    indices = list(indices)
    wanted = set(indices)
    pictures: dict[int, NDArray[np.uint8]] = {}
    crc = Crc32()
    with reading(dataset_dir / volume.path, VolumeError):
        for ct_slice in read_slices(volume, dataset_dir, crc):
            if ct_slice.index in wanted:
                if ct_slice.reason:
                    raise ManifestError(f"slice {ct_slice.index} can no longer be read: {ct_slice.reason}")
                _, pictures[ct_slice.index] = to_pixels(
                    ct_slice, volume.format, settings["pixels"], as_released=settings["as_released"]
                )
    if crc32 not in (None, str(crc)):
        raise ManifestError(f"{volume.path} changed since it was reduced: reduce again")
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
    manifest, rows, filled = Manifest.read(output_dir), read_index(output_dir), read_filled(output_dir)
    stored: dict[str, list[int]] = {record["volume"]: [] for record in manifest.volumes}
    for name in sorted(rows, key=rows.__getitem__):
        volume, index = parse_slice_id(name)
        if volume not in stored:
            raise ManifestError(f"{output_dir / STORE / 'index.csv'} names the unknown slice {name}: reduce again")
        stored[volume].append(index)
    lost = {
        record["volume"]
        for record in manifest.volumes
        if (named := stored[record["volume"]]) and (count_intact(output_dir, record, filled) or 0) < len(named)
    }
    lacking: dict[str, list[int]] = defaultdict(list)
    for volume in sorted(lost):  # the default selection first, as a run writes it
        lacking[volume] += stored[volume]
        stored[volume] = []
    for name in selection.kept_ids:
        volume, index = parse_slice_id(name)
        if name not in rows or (volume in lost and index not in lacking[volume]):
            lacking[volume].append(index)
    lacking = {volume: indices for volume, indices in lacking.items() if indices}
    if not lacking:
        return 0
    folder = last_dataset_dir(output_dir) if dataset_dir is None else Path(dataset_dir)
    volumes = find_again(manifest, folder)
    sums = {record["volume"]: record["crc32"] for record in manifest.volumes}
    for volume, indices in tqdm(lacking.items(), desc="fill store", unit=" volumes", disable=None):
        pixels = read_pixels(volumes[volume], folder, manifest.settings, indices, sums[volume])
        path = output_dir / STORE / f"{volume}.npy"
        if stored[volume]:
            pixels = np.concatenate([open_array(path)[: len(stored[volume])], pixels])
        write_volume(output_dir, volume, pixels)
        stored[volume] += indices
        filled[volume] = {"slices": len(pixels), "crc32": _pixels_crc32(pixels)}
        write_filled(output_dir, filled)
        write_index(output_dir, stored.items())
    return sum(map(len, lacking.values()))
