"""The ranking of every slice of a data set: `manifest.csv`, a row per slice, and `manifest.json`, how it was made.

Selections drawn from it stand beside it, see `selection`. The same input, settings and patient key give the same bytes.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.atomic import write_json
from lessismore_transforms.errors import ManifestError, reading
from lessismore_transforms.reduced.selection import Selection
from lessismore_transforms.reduced.table_files import (
    file_crc32,
    open_array,
    parse_column,
    parse_finite,
    parse_slice_id,
    parse_whole,
    read_record,
    read_table,
    slice_id,
    write_table,
)
from lessismore_transforms.reduction.hashing import hamming_distances, parse_hash
from lessismore_transforms.reduction.measures import MEASURES, rank_slices
from lessismore_transforms.reduction.selection import Ranking
from lessismore_transforms.reduction.target import Target, choose, text_order
from lessismore_transforms.volumes import Crc32
from lessismore_transforms.wording import counted

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2  # 1: hashes of pictures with their padding
TABLES = ("manifest.csv", "selections/default.csv", "selections/default.json")
_CHANGED = "was changed since it was written: undo the edit, or reduce again"
DISTANCES = "distances"  # folder of a matrix per volume, where a run was asked to keep them
COLUMNS = (
    "slice_id", "volume", "patient", "series", "path", "index", "position_mm", "height", "width",
    "hash", "removed_at", "removed_by", "rank", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Manifest:
    """The ranking of a data set.

    Args:
        slices: a row per slice in the order of the file, columns `COLUMNS`; `hash` is uint64, `removed_at` float
            (nan for a slice that outlasts the others), `rank` 1 for that one and the number of slices for the
            first removed; 0 for slices that were left when the ranking stopped early (`ranked_to` in the volume's
            record). A row with a `reason` is no candidate: hash 0, removed_at nan, rank 0.
        info: the content of manifest.json: `settings`, `volumes` (a dict per volume), `failures`, `skipped`, `store`
            (pixels, mean and standard deviation of the stored slices of the default selection, grey values in 0..1).
        folder: where it was read.
    """

    slices: pd.DataFrame
    info: dict[str, Any]
    folder: Path

    @property
    def settings(self) -> dict[str, Any]:
        """How the ranking was made."""
        settings: dict[str, Any] = self.info["settings"]
        return settings

    @property
    def volumes(self) -> list[dict[str, Any]]:
        """A record per volume, in the order of the rows."""
        volumes: list[dict[str, Any]] = self.info["volumes"]
        return volumes

    @classmethod
    def read(cls, output_dir: str | Path) -> Manifest:
        """The checked manifest in `output_dir`.

        Raises:
            ManifestError: there is none, or its content contradicts itself.
        """
        table, record = Path(output_dir) / "manifest.csv", Path(output_dir) / "manifest.json"
        for path in (record, table):
            with reading(path, ManifestError):
                there = path.is_file()
            if not there:
                raise ManifestError(f"{path} is missing: expected the output folder of a finished `reduce`")
        info = read_info(Path(output_dir))
        slices = read_table(table, COLUMNS)
        for column, parse, dtype in (
            ("index", parse_whole, np.int64),
            ("height", parse_whole, np.int64),
            ("width", parse_whole, np.int64),
            ("position_mm", parse_finite, np.float64),
            ("hash", lambda text: int(parse_hash(text)) if text else 0, np.uint64),
            ("removed_at", lambda text: parse_finite(text) if text else math.nan, np.float64),
            ("rank", lambda text: parse_whole(text or "0"), np.int64),
        ):
            slices[column] = np.asarray(parse_column(slices[column].tolist(), parse, table, column), dtype=dtype)
        _check(slices, info["volumes"], table)
        if damaged := [name for name in changed_tables(Path(output_dir), info) if name == table.name]:
            raise ManifestError(f"{Path(output_dir) / damaged[0]} {_CHANGED}")
        return cls(slices, info, Path(output_dir))

    def read_selection(self, name: str = "default") -> Selection:
        """The selection `name` that stands beside this manifest.

        Raises:
            ManifestError: there is none of that name, it was damaged, or it was made from another state of the
                manifest: it names other slices, or the same in another order.
        """
        selection = Selection.read(self.folder, name)
        if not np.array_equal(selection.slices["slice_id"].to_numpy(), self.slices["slice_id"].to_numpy()):
            raise ManifestError(
                f"the selection {name} in {self.folder} names other slices than manifest.csv, to which volumes may "
                "have been added: make it again with `select`"
            )
        return selection

    def by_volume(self) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
        """Each volume's record with its rows, in index order."""
        start = 0
        for record in self.volumes:
            yield record, self.slices.iloc[start : start + record["slices"]]
            start += record["slices"]

    def select(self, target: Target) -> Selection:
        """The slices that `target` keeps; a filter over the table, no image is read.

        Raises:
            ManifestError: the manifest cannot tell: it is a ranking by another measure, one that stopped early, or
                the exemplar rule wants distances that were not kept.
        """
        import pandas as pd

        if target.scope != "volume":
            raise ManifestError(f"the scope {target.scope} is not that of a volume: use across.select_across")
        ranked_by = self.settings["method"]
        if target.measure not in (ranked_by, "hash"):
            title = MEASURES[target.measure].title
            raise ManifestError(f"{self.folder} holds no {title} ranking: reduce again with the method {target.method}")

        counts = self._kept_counts(target.like)
        kept: list[bool] = []
        kept_by: list[str] = []
        distance: list[float] = []
        for record, rows in self.by_volume():
            names = rows["slice_id"].tolist()
            candidate = candidates(rows)
            if target.measure == ranked_by:
                ranking = Ranking(rows["removed_at"].to_numpy(), _indices(rows["removed_by"]), rows["rank"].to_numpy())
            else:
                ranking = rank_slices("hash", rows["hash"].to_numpy(), candidate)
            try:
                choice = choose(
                    target,
                    ranking,
                    candidate,
                    positions_mm=rows["position_mm"].to_numpy(),
                    distances_from=self._distances(target, record["volume"], rows["hash"].to_numpy(), candidate),
                    order=record_order(record),
                    hashes=rows["hash"].to_numpy(),
                    count=counts.get(record["volume"]),
                )
            except ValueError as error:
                raise ManifestError(f"{self.folder}: {error}") from None
            kept += choice.kept.tolist()
            kept_by += ["" if i < 0 else names[i] for i in choice.kept_by.tolist()]
            distance += choice.distance.tolist()
        table = {"slice_id": self.slices["slice_id"].to_numpy(), "kept": kept, "kept_by": kept_by, "distance": distance}
        return Selection(pd.DataFrame(table), target)

    def _kept_counts(self, selection: str | None) -> dict[str, int]:
        """The number of slices of each volume that another selection keeps."""
        if selection is None:
            return {}
        kept = self.read_selection(selection).rows()
        starts = np.cumsum([0, *(record["slices"] for record in self.volumes)])
        return {
            record["volume"]: int(kept[start : start + record["slices"]].sum())
            for record, start in zip(self.volumes, starts.tolist(), strict=False)
        }

    def _distances(
        self, target: Target, volume: str, hashes: NDArray[np.uint64], candidate: NDArray[np.bool_]
    ) -> Callable[[int], NDArray[Any]] | None:
        """Distances of one slice to all for the exemplar rule: from the hashes, or as they were kept by the run."""
        if target.rule != "exemplars":
            return None
        if target.method == "hash":
            return lambda index: hamming_distances(hashes[index : index + 1], hashes)[0]
        matrix = self.kept_distances(volume)
        if matrix is None:
            path = self.folder / DISTANCES / f"{volume}.npy"
            raise ManifestError(f"{path} is missing: the exemplar rule needs a run with --keep_distances")
        return matrix_rows(matrix, candidate)

    def kept_distances(self, volume: str) -> NDArray[Any] | None:
        """The distances (c, c) of a volume's candidates, memory-mapped; None where the run did not keep them.

        Raises:
            ManifestError: the file cannot be read.
        """
        path = self.folder / DISTANCES / f"{volume}.npy"
        return open_array(path) if path.is_file() else None


def read_reduction(output_dir: str | Path, selection: str = "default") -> tuple[Manifest, Selection]:
    """The manifest in `output_dir` and one of its selections, which fit each other.

    Raises:
        ManifestError: either is missing or damaged, or the selection was made from another state of the manifest.
    """
    manifest = Manifest.read(output_dir)
    return manifest, manifest.read_selection(selection)


def write_manifest(output_dir: Path, rows: Iterable[Sequence[str]], info: dict[str, Any]) -> None:
    """Write manifest.csv from rows of texts in the order of `COLUMNS`, then manifest.json, which makes it valid.

    The default selection stands there already: manifest.json holds checksums of the tables, and of itself.
    """
    write_table(output_dir / "manifest.csv", COLUMNS, rows)
    content = {"format": FORMAT, **info, "tables": {name: file_crc32(output_dir / name) for name in TABLES}}
    write_json(output_dir / "manifest.json", {**content, "crc32": content_crc32(content)})


def read_info(output_dir: Path) -> dict[str, Any]:
    """What manifest.json holds, its parts checked.

    Raises:
        ManifestError: it is missing or damaged, or of another format.
    """
    record = output_dir / "manifest.json"
    info = read_record(record)
    if info.get("format") != FORMAT:
        found = info.get("format")
        raise ManifestError(
            f"{record}: expected format {FORMAT}, found {found}: reduce again with this version into another folder"
        )
    kinds = {"settings": dict, "volumes": list, "failures": list, "skipped": list}
    if lacking := [name for name, kind in kinds.items() if not isinstance(info.get(name), kind)]:
        raise ManifestError(f"{record} lacks {lacking[0]}: undo the edit or reduce again")
    for number, volume in enumerate(info["volumes"], start=1):
        if problem := _problem(volume):
            raise ManifestError(f"{record}, volume {number}: {problem}: undo the edit or reduce again")
    return info


def changed_tables(output_dir: Path, info: Mapping[str, Any]) -> list[str]:
    """Names of the tables that are not as the run that wrote manifest.json left them.

    Raises:
        ManifestError: manifest.json itself was changed.
    """
    content = {name: value for name, value in info.items() if name != "crc32"}
    sums = info.get("tables")
    if info.get("crc32") != content_crc32(content) or not isinstance(sums, dict):
        raise ManifestError(f"{output_dir / 'manifest.json'} {_CHANGED} into another folder")
    return [name for name in TABLES if file_crc32(output_dir / name) != sums.get(name)]


def _problem(volume: Any) -> str:
    """What is wrong with the record of a volume; nothing where it can be used."""
    if not isinstance(volume, dict):
        return f"expected an object, found {type(volume).__name__}"
    if not (isinstance(volume.get("volume"), str) and re.fullmatch(r"[0-9a-f]{16}", volume["volume"])):
        return "its id is not of 16 hex digits"
    for name, kind in (("patient", str), ("series", str), ("format", str), ("path", str), ("crc32", str),
                       ("plane", str), ("notes", list), ("store", dict)):  # fmt: skip
        if not isinstance(volume.get(name), kind):
            return f"{name} is no {kind.__name__}"
    for name, least in (("slices", 0), ("height", 1), ("width", 1)):
        value = volume.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
            return f"{name} is no whole number from {least}"
    spacing = volume.get("spacing_mm")
    numbers = spacing if isinstance(spacing, list) else []
    if len(numbers) != 3 or not all(type(mm) in (int, float) and math.isfinite(mm) for mm in numbers):
        return "spacing_mm is not of three numbers"
    stored = volume["store"]
    if not all(type(stored.get(name)) is int for name in ("slices", "sum", "squares")):
        return "store is not of whole numbers"
    return "" if isinstance(stored.get("crc32"), str) else "store has no crc32"


def content_crc32(content: Mapping[str, Any]) -> str:
    """CRC32 of what a JSON file holds, however it is written."""
    crc = Crc32()
    crc.update(json.dumps(content, sort_keys=True).encode())
    return str(crc)


def candidates(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Which slices (n,) can be kept: those without a reason to be left out."""
    mask: NDArray[np.bool_] = rows["reason"].to_numpy() == ""
    return mask


def matrix_rows(matrix: NDArray[Any], candidate: NDArray[np.bool_]) -> Callable[[int], NDArray[Any]]:
    """Distances (n,) of one slice to all, from the matrix (c, c) of the candidates; nan where there is none."""
    place = np.cumsum(candidate) - 1

    def row(index: int) -> NDArray[Any]:
        distances = np.full(len(candidate), np.nan)
        distances[candidate] = matrix[place[index]]
        return distances

    return row


def record_order(record: dict[str, Any]) -> NDArray[np.int64] | None:
    """The order in which the exemplar rule walks through a volume: that of its released names where it has one."""
    first = record.get("first_number")
    return None if first is None else text_order(first, record["slices"])


def inside(path: str) -> bool:
    """Whether a path of a table stays below the folder it is relative to."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        return False
    return os.name != "nt" or ("\\" not in path and ":" not in parts[0])


def _indices(names: pd.Series[str]) -> NDArray[np.int64]:
    return np.asarray([parse_slice_id(name)[1] if name else -1 for name in names.tolist()], dtype=np.int64)


def _check(slices: pd.DataFrame, volumes: list[dict[str, Any]], table: Path) -> None:
    """Refuse a table that does not fit its record, naming the first line that is wrong."""

    def refuse(row: int, problem: str) -> NoReturn:
        raise ManifestError(f"{table}, line {row + 2}: {problem}: undo the edit or reduce again")

    counts = {record["volume"]: record["slices"] for record in volumes}
    expected = ((volume, index) for volume, count in counts.items() for index in range(count))
    known = set(slices["slice_id"])
    seen: set[tuple[str, int]] = set()
    columns = ("volume", "index", "slice_id", "path", "removed_by")
    row = -1
    for row, (volume, index, name, path, removed_by) in enumerate(zip(*map(slices.__getitem__, columns), strict=True)):
        if volume not in counts:
            refuse(row, f"unknown volume {volume}")
        if not 0 <= index < counts[volume]:
            refuse(row, f"slice {index} is out of range, volume {volume} has {counted(counts[volume], 'slice')}")
        if (volume, index) in seen:
            refuse(row, f"a second row for slice {index} of volume {volume}")
        seen.add((volume, index))
        if (volume, index) != next(expected):
            refuse(row, f"slice {index} of volume {volume} is out of order, or rows before it are missing")
        if name != slice_id(volume, index):
            refuse(row, f"the slice_id {name} does not fit volume {volume} and index {index}")
        if not inside(path):
            refuse(row, f"the path {path!r} leaves the data set's folder")
        if removed_by and removed_by not in known:
            refuse(row, f"removed_by names the unknown slice {removed_by}")
    if (missing := next(expected, None)) is not None:
        refuse(row + 1, f"the row of slice {missing[1]} of volume {missing[0]} is missing")
    start = 0
    for volume, count in counts.items():
        rows = slices.iloc[start : start + count]
        ranks = np.sort(rows["rank"].to_numpy()[candidates(rows)])
        left = int((ranks == 0).sum())
        if not np.array_equal(ranks[left:], np.arange(left + 1, len(ranks) + 1)):
            refuse(start, f"the ranks of volume {volume} are not {left + 1} to {len(ranks)}")
        start += count
