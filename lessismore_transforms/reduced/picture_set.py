"""A folder of 2-D pictures as a data set for pre-training, in place of an output folder of `reduce`.

What was read is written beside a run as `pictures.csv`, a row per picture with its size, checksum and hashed patient,
so that an evaluation can look for its own pictures there.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lessismore_transforms.atomic import atomic_write, writing
from lessismore_transforms.errors import ManifestError, UserError, reading
from lessismore_transforms.progress import progress_bar
from lessismore_transforms.reduced.label_file import read_rows
from lessismore_transforms.reduced.patients import hash_patient, key_fingerprint, load_key
from lessismore_transforms.reduced.picture_list import list_split
from lessismore_transforms.reduction.hashing import dhash
from lessismore_transforms.reduction.intensity import min_max_uint8
from lessismore_transforms.volumes import itk_files, nifti
from lessismore_transforms.volumes.pictures import PictureHeader, read_header, read_image
from lessismore_transforms.wording import counted, plural

PICTURES = "pictures.csv"
COLUMNS = ("path", "height", "width", "sha256", "patient")
UNKNOWN = "not known"  # of patients

_OF_A_REDUCTION = (  # all of one line: while it runs; finished; damaged
    ("parts/settings.json",),
    ("selections/default.csv",),
    ("manifest.json", "manifest.csv", "store/index.csv"),
)
_MOST_MEASURED = 1000  # pictures, for mean and standard deviation
_WHITE = 255
_DIGITS = 6
_Result = TypeVar("_Result")


class PictureSet:
    """The pictures of a folder as `{"image": uint8 tensor (C, rows, columns), "slice_id": str}`, for any DataLoader.

    Each header and the checksum of each file are read at once, so that a picture that is missing or none is found
    before a training begins; pixels are read when they are asked for, as by `read_image`.

    Args:
        folder: that holds PNG, JPEG, TIFF or DICOM files, at any depth.
        split: which of them, see `list_split`; None for all.
        channels: 1 for grey, 3 for colour; None for that in which all are stored.

    Attributes:
        channels: 1 or 3.
        checksums: SHA-256 of each file, 64 hex digits.
        patients: hash of the patient of each picture, with the default key; empty where not known.

    Raises:
        ManifestError: the folder holds no pictures.
        UserError: a picture cannot be read, grey and colour are mixed, the split is no list of pictures there, or there
            is none and volumes lie beside the pictures.
    """

    def __init__(self, folder: str | Path, split: str | Path | None = None, channels: int | None = None) -> None:
        self.folder = Path(folder)
        if split is None:
            _refuse_volumes(self.folder)
        self.listed = list_split(self.folder, split)
        self._split = None if split is None else str(split)
        scanned = _in_order(_scan, self._places(), self.folder, "look")
        self._headers = [header for header, _ in scanned]
        self.checksums = [checksum for _, checksum in scanned]
        self.channels = _channels(self.folder, self.listed.paths, self._headers, channels)
        known = [one or header.patient for one, header in zip(self.listed.patients, self._headers, strict=True)]
        key = load_key() if any(known) else b""
        self.patients = [hash_patient(patient, key) if patient else "" for patient in known]
        self.patients_are = f"hashed with key {key_fingerprint(key)}" if any(known) else UNKNOWN
        self._headers = [PictureHeader(each.height, each.width, each.channels) for each in self._headers]
        self._hashes: NDArray[np.uint64] | None = None
        self._mean_std: tuple[list[float], list[float]] | None = None

    @classmethod
    def of_run(cls, run: str | Path) -> PictureSet:
        """The pictures that a run was trained on, by its `pictures.csv` and `config.json`.

        Raises:
            ManifestError: the run does not tell, or its pictures are no longer those that it was trained on.
            UserError: a picture is missing or cannot be read.
        """
        run = Path(run)
        rows, _ = read_rows(run / PICTURES)
        try:
            with reading(run / "config.json"):
                told = json.loads((run / "config.json").read_text(encoding="utf-8"))["trainer"]["pictures"]
            folder, channels, patients_are = (told[name] for name in ("folder", "channels", "patients"))
            sums = {row["path"]: row["sha256"] for row in rows}
            patients = {row["path"]: row["patient"] for row in rows}
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ManifestError(
                f"expected {run / 'config.json'} and {PICTURES} beside it to tell what was trained on, found them "
                "damaged or of another version: name the folder of the pictures, as FOLDER or FOLDER:LIST"
            ) from error
        if not Path(folder).is_dir():
            raise ManifestError(
                f"{run / PICTURES} names pictures in {folder}, which is no folder here: name the folder that holds "
                "them now, as FOLDER or FOLDER:LIST"
            )
        pictures = cls(folder, run / PICTURES, channels)
        for path, checksum in zip(pictures.listed.paths, pictures.checksums, strict=True):
            if sums[path] != checksum:
                raise ManifestError(
                    f"{Path(folder) / path} is not the file that {run} was trained on, by its checksum: put that one "
                    "back, or name the folder that holds it"
                )
        pictures.patients = [patients[path] for path in pictures.listed.paths]  # hashed already
        pictures.patients_are = patients_are
        return pictures

    def __len__(self) -> int:
        return len(self.listed.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        import torch  # not needed to look at a list

        picture = np.atleast_3d(self.picture(index, self.channels))
        image = torch.from_numpy(picture.transpose(2, 0, 1).copy())
        return {"image": image, "slice_id": self.listed.paths[index]}

    def picture(self, index: int, channels: int = 1) -> NDArray[np.uint8]:
        """A picture as grey, uint8 (H, W), for 1 channel, or colour, uint8 (H, W, 3), for 3."""
        return read_image(self.folder / self.listed.paths[index], channels)

    @property
    def cluster_count(self) -> int:
        """Each picture is a cluster of its own."""
        return len(self)

    @property
    def slice_ids(self) -> list[str]:
        """The path of each item below the folder."""
        return list(self.listed.paths)

    def identity(self) -> str:
        """64 hex digits that tell these pictures, in this order and with these channels, from others."""
        digest = hashlib.sha256(f"{self.channels}\n".encode())
        for path, checksum in zip(self.listed.paths, self.checksums, strict=True):
            digest.update(f"{path} {checksum}\n".encode())
        return digest.hexdigest()

    def hashes(self) -> NDArray[np.uint64]:
        """The difference hash of each picture in grey, stretched as `reduce` hashes a slice; all are read, once."""
        if self._hashes is None:
            self._hashes = np.array(_in_order(_hash, self._places(), self.folder, "hash"), np.uint64)
        return self._hashes

    def groups(self) -> list[str]:
        """What each picture belongs together with: its group or patient in the table, else its folder."""
        parents = (PurePosixPath(path).parent.as_posix() for path in self.listed.paths)
        return [
            f"group {group}" if group else parent for group, parent in zip(self.listed.groups, parents, strict=True)
        ]

    def smallest(self) -> tuple[int, int]:
        """Rows and columns of the picture with the fewest pixels."""
        return min(((each.height, each.width) for each in self._headers), key=math.prod)

    def mean_std(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of the values in 0..1 of each channel, of at most 1,000 evenly spaced pictures.

        Raises:
            UserError: a channel is constant, so that nothing can be divided by its deviation.
        """
        if self._mean_std is None:
            numbers = np.unique(np.linspace(0, len(self) - 1, min(len(self), _MOST_MEASURED)).round().astype(int))
            places = self._places()
            sums = _in_order(_sums_with(self.channels), [places[n] for n in numbers], self.folder, "measure")
            n = sum(pixels for pixels, _, _ in sums)
            totals = [sum(each) for each in zip(*(total for _, total, _ in sums), strict=True)]
            squares = [sum(each) for each in zip(*(square for _, _, square in sums), strict=True)]
            mean = [round(total / (n * _WHITE), _DIGITS) for total in totals]
            std = [
                round(math.sqrt(n * square - total**2) / (n * _WHITE), _DIGITS)
                for total, square in zip(totals, squares, strict=True)
            ]
            if min(std) <= 0:
                raise UserError(
                    f"expected pictures that show something in {self.folder}, found a constant "
                    "channel: give mean and std"
                )
            self._mean_std = mean, std
        return self._mean_std

    def record(self) -> dict[str, Any]:
        """What was read, for the configuration that a run keeps; the pictures themselves are in `PICTURES`."""
        return {
            "file": PICTURES,
            "folder": str(self.folder.resolve()),
            "split": self._split,
            "list": None if self.listed.file is None else str(self.listed.file.resolve()),
            "pictures": len(self),
            "channels": self.channels,
            "patients": self.patients_are,
            "identity": self.identity(),
        }

    def write(self, run: str | Path) -> None:
        """Write `PICTURES` into the folder of a run.

        Raises:
            OutputError: it cannot be written.
        """
        path = Path(run) / PICTURES
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for name, header, checksum, patient in zip(
                self.listed.paths, self._headers, self.checksums, self.patients, strict=True
            ):
                writer.writerow((name, header.height, header.width, checksum, patient))

    def _places(self) -> list[Path]:
        return [self.folder / path for path in self.listed.paths]


def _refuse_volumes(folder: Path) -> None:
    """Volumes are no pictures: leaving them out would train on the rest without a word."""
    suffixes = (*nifti.SUFFIXES, *itk_files.SUFFIXES)
    found = sorted(path for path in folder.rglob("*") if path.name.lower().endswith(suffixes))
    if found:
        raise UserError(
            f"expected pictures, or the output of a reduction, found {counted(len(found), 'volume')} in {folder}, such "
            f"as {found[0].relative_to(folder)}: `reduce {folder} --output_dir OUT` makes slices of them; then name OUT"
        )


def is_reduction(folder: str | Path) -> bool:
    """Whether a folder is an output of `reduce`, finished or not; the pictures in one are none to train on."""
    return any(all((Path(folder) / name).exists() for name in names) for names in _OF_A_REDUCTION)


def _channels(folder: Path, paths: Sequence[str], headers: Sequence[PictureHeader], wanted: int | str | None) -> int:
    """The channels in which all pictures are read."""
    if wanted is not None:
        if str(wanted) not in ("1", "3"):
            raise UserError(f"expected channels of 1 (grey) or 3 (colour), found {wanted!r}: give one of these")
        return int(wanted)
    first: dict[int, str] = {}
    for path, header in zip(paths, headers, strict=True):
        first.setdefault(header.channels, path)
    if len(first) > 1:
        grey = sum(header.channels == 1 for header in headers)
        raise UserError(
            f"expected pictures of {folder} that are all stored as grey or all as colour, found {grey:,} grey (first "
            f"{first[1]}) and {len(headers) - grey:,} in colour (first {first[3]}): give --channels 1 to read all as "
            "grey, or 3 as colour"
        )
    return next(iter(first))


def _scan(path: Path) -> tuple[PictureHeader, str]:
    header = read_header(path)
    with path.open("rb") as file:
        return header, hashlib.file_digest(file, "sha256").hexdigest()


def _hash(path: Path) -> int:
    return int(dhash(min_max_uint8(read_image(path))))


def _sums_with(channels: int) -> Callable[[Path], tuple[int, list[int], list[int]]]:
    def sums(path: Path) -> tuple[int, list[int], list[int]]:
        """Pixels, and of each channel the sum and the sum of squares: whole numbers, so that they add up exactly."""
        counts = [
            np.bincount(c.ravel(), minlength=256) for c in np.atleast_3d(read_image(path, channels)).transpose(2, 0, 1)
        ]
        values = np.arange(256)
        return int(counts[0].sum()), [int(c @ values) for c in counts], [int(c @ values**2) for c in counts]

    return sums


def _in_order(work: Callable[[Path], _Result], paths: Sequence[Path], folder: Path, what: str) -> list[_Result]:
    """What a function makes of each picture, several at a time: decoders and checksums release Python's lock.

    Raises:
        UserError: it fails on some; all are tried before this one error.
    """

    def tried(path: Path) -> _Result | Exception:
        try:
            return work(path)
        except (UserError, OSError) as error:
            return error

    threads = min(16, (os.cpu_count() or 1) + 2)
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:  # threads get into each other's filters
        results = list(progress_bar(pool.map(tried, paths), total=len(paths), desc=what, unit=" pictures"))
    failed = [result for result in results if isinstance(result, Exception)]
    if failed:
        raise UserError(
            f"{len(failed):,} of {counted(len(paths), 'picture')} of {folder} {plural(len(failed), 'is', 'are')} not "
            f"to be used, first {failed[0]}"
        ) from failed[0]
    return [result for result in results if not isinstance(result, Exception)]
