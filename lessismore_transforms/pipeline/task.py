"""One volume's task: all that its reduction needs, wherever it runs."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lessismore_transforms.atomic import remove_temporaries, writing
from lessismore_transforms.errors import RunError
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.patients import hash_patient
from lessismore_transforms.volumes import Found, Volume
from lessismore_transforms.wording import bounded

VOLUMES_WITH_THUMBNAILS = 8


@dataclass(frozen=True)
class Task:
    """All that one volume's reduction needs, wherever it runs."""

    volume: Volume
    dataset_dir: Path
    output_dir: Path
    settings: Settings
    patient: str
    thumbnails: bool
    png_dir: Path | None
    released_name: str  # what PNG files of the volume are called, up to the number (or the name) of the slice
    first_number: int  # the first slice's number there


def make_tasks(
    found: Found, dataset_dir: Path, output_dir: Path, settings: Settings, key: bytes, png_dir: Path | None
) -> list[Task]:
    """A task for each volume; the folder for PNG files is made.

    Raises:
        OutputError: that folder cannot be written.
    """
    if png_dir is not None:
        with writing(png_dir):
            png_dir.mkdir(parents=True, exist_ok=True)
            remove_temporaries(png_dir)
    shown = set(sorted(volume.volume for volume in found.volumes)[:VOLUMES_WITH_THUMBNAILS])
    patients = [
        volume.patient if settings.keep_patient_ids else hash_patient(volume.patient, key) for volume in found.volumes
    ]
    names = _released_names(found, patients)
    if png_dir is not None:
        _check_names(found, names)
    return [
        Task(
            volume=volume,
            dataset_dir=dataset_dir,
            output_dir=output_dir,
            settings=settings,
            patient=patient,
            thumbnails=volume.volume in shown,
            png_dir=png_dir,
            released_name=name,
            first_number=first,
        )
        for volume, patient, (name, first) in zip(found.volumes, patients, names, strict=True)
    ]


def _check_names(found: Found, names: list[tuple[str, int]]) -> None:
    """Refuse PNG names that two slices would share.

    Raises:
        RunError: names the two volumes.
    """
    seen: dict[str, str] = {}
    for volume, (name, first) in zip(found.volumes, names, strict=True):
        for index in range(volume.shape[0]):
            stem = png_stem(volume, name, first, index)
            if stem in seen:
                raise RunError(
                    f"the PNG name {bounded(stem)}.png would be that of slices of {seen[stem]} and {volume.path}: "
                    "run without --keep_patient_ids or without --png"
                )
            seen[stem] = volume.path


def png_stem(volume: Volume, name: str, first: int, index: int) -> str:
    """The name of a slice's PNG file, from the released name of its volume and the number of its first slice."""
    if volume.format == "images":
        return f"{name}{_stem(volume.slice_path(index))}"
    return f"{name}_{first + index}"


def _released_names(found: Found, patients: list[str]) -> list[tuple[str, int]]:
    """What the released scripts call each volume's PNG files, and the number of its first slice.

    DICOM slices are numbered through the whole data set, files by volume and slice.
    """
    pictures = any(volume.format == "images" for volume in found.volumes)
    stems = [[_stem(item.path) for item in volume.slices] if pictures else [] for volume in found.volumes]
    times = Counter(stem for of_volume in stems for stem in of_volume)
    names: list[tuple[str, int]] = []
    dicom_slices = files = 0
    for volume, patient, of_volume in zip(found.volumes, patients, stems, strict=True):
        first, name = 0, re.sub(r"[^A-Za-z0-9.-]", "_", patient)
        if volume.format == "dicom":
            first = dicom_slices
            dicom_slices += volume.shape[0]
        elif volume.format != "images":
            files += 1
            name = f"{name}_{files}"
        else:  # pictures keep their names, which are unique only with their folder
            unique = all(times[stem] == 1 for stem in of_volume)
            name = "" if unique else f"{volume.volume}_"
        names.append((name, first))
    return names


def _stem(path: str) -> str:
    """A file's name without its suffix; pathlib takes ten times as long."""
    return posixpath.splitext(posixpath.basename(path))[0]
