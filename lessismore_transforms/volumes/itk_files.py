"""NRRD and MetaImage volumes, read whole by ITK."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lessismore_transforms.errors import VolumeError
from lessismore_transforms.volumes.geometry import LPS_TO_RAS
from lessismore_transforms.volumes.volume import Crc32, Skipped, Slice, Volume, to_hu, volume_of_file

SUFFIXES = (".nrrd", ".mha", ".mhd")


def find(path: str, root: Path, *, stored: bool = False) -> Volume | Skipped:
    """The volume in the file `path` below `root`, or the reason why it holds none."""
    import itk  # takes seconds to import and is needed for few data sets

    name = str(root / path)
    try:
        header: Any = itk.ImageIOFactory.CreateImageIO(name, itk.CommonEnums.IOFileMode_ReadMode)
        header.SetFileName(name)
        header.ReadImageInformation()
    except (RuntimeError, AttributeError):  # AttributeError: no reader knows the file
        return Skipped(path, "damaged header: no NRRD or MetaImage that ITK can read")
    dimensions = header.GetNumberOfDimensions()
    shape = tuple(header.GetDimensions(axis) for axis in range(dimensions))
    if dimensions != 3 or header.GetNumberOfComponents() != 1:
        components = header.GetNumberOfComponents()
        return Skipped(path, f"image of shape {shape} with {components} values per voxel: split it into 3-D volumes")
    affine = np.eye(4)
    for axis in range(3):
        affine[:3, axis] = np.multiply(header.GetDirection(axis), header.GetSpacing(axis))
        affine[axis, 3] = header.GetOrigin(axis)
    return volume_of_file(path, "itk", shape, LPS_TO_RAS @ affine, stored=stored)


def read(volume: Volume, root: Path, crc: Crc32) -> Iterator[Slice]:
    """The slices of `volume` in stored order, each with its canonical index.

    Raises:
        VolumeError: ITK cannot read the voxels.
    """
    import itk

    path = root / volume.path
    try:
        for file in files_of(path):
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    crc.update(block)
        voxels = itk.array_from_image(itk.imread(str(path)))  # (slices, rows, columns)
    except (RuntimeError, OSError, itk.TemplateTypeError) as error:
        reason = str(error).strip().splitlines()[0 if isinstance(error, itk.TemplateTypeError) else -1]
        raise VolumeError(f"{volume.path}: the voxels cannot be read ({reason}); copy it again") from error
    for number, raw in enumerate(voxels):
        hu, replaced = to_hu(raw)
        yield Slice(volume.orientation.index(number, len(voxels)), volume.orientation.apply(hu), replaced=replaced)


def files_of(path: Path) -> list[Path]:
    """The file and, for a MetaImage header, the data file beside it."""
    if path.suffix.lower() == ".mhd":
        found = re.search(rb"(?m)^ElementDataFile\s*=\s*(\S.*?)\s*$", path.read_bytes())
        if found and (beside := path.with_name(Path(found[1].decode()).name)).is_file():
            return [path, beside]
    return [path]
