"""One volume from the paths in an item of a MONAI pipeline, instead of all volumes below a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lessismore_transforms.errors import UserError
from lessismore_transforms.volumes import dicom, images, itk_files, nifti
from lessismore_transforms.volumes.discovery import find_volumes
from lessismore_transforms.volumes.geometry import LPS_TO_RAS, Orientation
from lessismore_transforms.volumes.picture_files import picture_size, why_unreadable
from lessismore_transforms.volumes.volume import Format, Skipped, StoredSlice, Volume, file_patient, volume_id
from lessismore_transforms.wording import counted

_FILE_FORMATS: tuple[tuple[Format, tuple[str, ...]], ...] = (
    ("nifti", nifti.SUFFIXES),
    ("itk", itk_files.SUFFIXES),
    ("images", images.SUFFIXES),
)


def file_format(path: str | Path) -> Format:
    """The format that belongs to a file's name; DICOM for all names of no other format."""
    name = Path(path).name.lower()
    return next((kind for kind, suffixes in _FILE_FORMATS if name.endswith(suffixes)), "dicom")


def volume_from_paths(paths: Sequence[str | Path], *, series: str | None = None) -> tuple[Volume, Path]:
    """The volume that `paths` stand for, and the root that its own paths are relative to.

    Args:
        paths: one NIfTI, NRRD or MetaImage file, one folder that holds a volume, or the slices of one volume:
            DICOM files in any order, or PNG or JPEG files in slice order (such as `Volume.as_dict` gives).
        series: the volume to take where there are several: its SeriesInstanceUID, with `/k` for the k-th part of a
            series that had to be split.

    Raises:
        UserError: the paths stand for no volume or for several, or one of them is no slice of the volume.
    """
    places = [Path(path) for path in paths]
    if missing := [place for place in places if not place.exists()]:
        raise UserError(f"expected a CT volume at {missing[0]}, found nothing: check the path")
    if odd := [place for place in places if not (place.is_file() or place.is_dir())]:  # a pipe would block
        raise UserError(f"expected a CT volume at {odd[0]}, found neither a file nor a folder: check the path")
    if not places:
        raise UserError("expected the paths of a volume, found an empty list: name a file, a folder or its slices")
    if len(places) == 1 and places[0].is_dir():
        found = find_volumes(places[0])
        return _the_one(found.volumes, found.skipped, places[0], series), places[0]

    root = Path(os.path.commonpath([place.parent for place in places]))
    names = [place.relative_to(root).as_posix() for place in places]
    formats = {file_format(name) for name in names}
    if len(places) == 1 and formats <= {"nifti", "itk"}:
        result = (nifti if formats == {"nifti"} else itk_files).find(names[0], root, labels=True)
        if isinstance(result, Skipped):
            raise UserError(f"{places[0]} is no CT volume: {result.reason}")
        return result, root
    if formats == {"images"}:
        return _pictures(names, root), root
    if formats != {"dicom"} or any(place.is_dir() for place in places):
        raise UserError(
            f"expected one volume, found {len(places)} paths, the first {places[0]}: "
            "give one file, one folder, or the DICOM, PNG or JPEG files of one volume's slices"
        )
    headers = [header for name in names for header in dicom.read_headers(name, root)]
    volumes, skipped = dicom.build_volumes([header for header in headers if not isinstance(header, Skipped)])
    skipped = [header for header in headers if isinstance(header, Skipped)] + skipped
    volume = _the_one(volumes, skipped, places[0].parent, series)
    if skipped:  # each file was named as a slice of this volume
        raise UserError(f"{root / skipped[0].path} is no slice of the volume: {skipped[0].reason}; leave it out")
    return volume, root


def _the_one(volumes: Sequence[Volume], skipped: Sequence[Skipped], place: Path, series: str | None) -> Volume:
    chosen = [volume for volume in volumes if series is None or volume.series == series]
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(volume.series or volume.path for volume in volumes[:5]) + (", ..." if len(volumes) > 5 else "")
    if chosen:
        raise UserError(
            f"expected one volume in {place}, found {len(volumes)} ({names}): "
            "choose a DICOM series with CTVolumeReader(series=...), or name one file or folder"
        )
    if volumes:
        raise UserError(f"expected the series {series} in {place}, found {names}: choose one of these")
    reason = (
        f" (the first of {counted(len(skipped), 'file')}: {skipped[0].path}: {skipped[0].reason})" if skipped else ""
    )
    raise UserError(f"expected a CT volume in {place}, found none{reason}")


def _pictures(names: Sequence[str], root: Path) -> Volume:
    """A volume of 2-D pictures in the order of the list, whatever their names are."""
    sizes = []
    for name in names:
        try:
            sizes.append(picture_size(root / name))
        except Exception as error:  # decoders raise many kinds on damaged files
            raise UserError(f"{root / name}: {why_unreadable(error)}") from error
        if sizes[-1] != sizes[0]:
            raise UserError(
                f"expected slices of {sizes[0]} pixels as {names[0]}, found {sizes[-1]} in {name}: "
                "give the slices of one volume"
            )
    return Volume(
        volume=volume_id(names[0]),
        patient=file_patient(names[0]),
        series="",
        format="images",
        path=str(Path(names[0]).parent.as_posix()),
        shape=(len(names), *sizes[0]),
        affine=tuple(map(tuple, LPS_TO_RAS.tolist())),
        orientation=Orientation(),
        slices=tuple(StoredSlice(name, float(index)) for index, name in enumerate(names)),
        notes=("2-D images: grey values for HU, slice numbers for positions",),
    )
