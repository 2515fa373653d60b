"""Enhanced CT: one DICOM file of many frames, each with its own place and rescale in the functional groups.

DICOM PS3.3 A.38 (Enhanced CT) and A.70 (Legacy Converted Enhanced CT), functional groups in C.7.6.16.2: what holds for
all frames stands in the shared group, the rest in a group for each frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import pydicom

from lessismore_transforms.volumes.dicom_elements import Elements
from lessismore_transforms.volumes.dicom_header import (
    TAGS,
    Header,
    SliceError,
    check_place,
    checked_rescale,
    pixel_layout,
    uid,
)
from lessismore_transforms.volumes.volume import Skipped
from lessismore_transforms.wording import counted, plural

_MOST_FRAMES = 1 << 16


def frame_headers(path: str, elements: Elements, patient: str, file: BinaryIO) -> list[Header | Skipped]:
    """A header for each frame of an enhanced CT file that is a slice, and behind them what the others are.

    Args:
        path: of the file.
        elements: those of the whole file.
        patient: PatientID.
        file: the same, open.

    Raises:
        SliceError: the file holds no CT slices.
    """
    if (modality := elements.text(TAGS["Modality"])) != "CT":
        raise SliceError(
            "enhanced CT without the modality CT" if not modality else "an enhanced image of another modality"
        )
    (rows, columns), dtype, _, raw = pixel_layout(elements)
    if raw and elements.pixels < 0:
        raise SliceError("no pixel data")
    file.seek(0)
    dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    frames = int(dataset.get("NumberOfFrames") or 1)
    if not groups or len(groups) != frames or frames > _MOST_FRAMES:
        told = f"{counted(len(groups), 'group')} that {plural(len(groups), 'tells', 'tell')} where they are"
        raise SliceError(f"{counted(frames, 'frame')}, but {told}: convert it to NIfTI")
    size = rows * columns * np.dtype(dtype).itemsize
    if raw and elements.length < frames * size:
        raise SliceError(f"{elements.length} of {frames * size} bytes of pixels: copy the file again")
    shared = next(iter(dataset.get("SharedFunctionalGroupsSequence") or []), pydicom.Dataset())
    headers = [
        _frame_header(
            path, patient, elements, number, _Groups(own, shared), elements.pixels + number * size if raw else -1
        )
        for number, own in enumerate(groups)
    ]
    kept: list[Header | Skipped] = [header for header in headers if header is not None]
    if not kept:
        raise SliceError("a localizer (scout view), not a slice")
    if scouts := frames - len(kept):
        kept.append(Skipped(path, f"{scouts} of its {counted(frames, 'frame')}: a localizer (scout view), not a slice"))
    return kept


class _Groups:
    """The functional groups of a frame: its own, then those that all frames share."""

    def __init__(self, own: pydicom.Dataset, shared: pydicom.Dataset) -> None:
        self.places = (own, shared)

    def value(self, group: str, keyword: str) -> Any:
        """An element of the first group of that name that has it; None where there is none."""
        for item in self._items(group):
            if item.get(keyword) is not None:
                return item.get(keyword)
        return None

    def numbers(self, group: str, keyword: str) -> tuple[float, ...]:
        """The same as numbers."""
        value = self.value(group, keyword)
        return () if value is None else tuple(float(part) for part in np.atleast_1d(value))

    def _items(self, group: str) -> Iterator[pydicom.Dataset]:
        for place in self.places:
            yield from place.get(group) or []


def _frame_header(
    path: str, patient: str, elements: Elements, number: int, groups: _Groups, offset: int
) -> Header | None:
    """The header of a frame; None for a scout view."""
    kind = groups.value("CTImageFrameTypeSequence", "FrameType") or elements.text(TAGS["ImageType"]).split("\\")
    if "LOCALIZER" in kind:
        return None
    position = groups.numbers("PlanePositionSequence", "ImagePositionPatient")
    directions = groups.numbers("PlaneOrientationSequence", "ImageOrientationPatient")
    check_place(position, directions)
    (rows, columns), dtype, bits, _ = pixel_layout(elements)
    content = [
        str(groups.value("FrameContentSequence", name))
        for name in ("TemporalPositionIndex", "StackID", "FrameAcquisitionNumber")
    ]
    slope = groups.numbers("PixelValueTransformationSequence", "RescaleSlope")
    intercept = groups.numbers("PixelValueTransformationSequence", "RescaleIntercept")
    thickness = groups.numbers("PixelMeasuresSequence", "SliceThickness")
    return Header(
        path=path,
        patient=patient,
        series=uid(elements.text(TAGS["SeriesInstanceUID"])),
        instance_uid=uid(elements.text(TAGS["SOPInstanceUID"])),
        phases=(*content, "/".join(content)),
        number=float(number),
        position=position,
        directions=directions,
        pixel_spacing=groups.numbers("PixelMeasuresSequence", "PixelSpacing"),
        thickness=thickness[0] if thickness else 0.0,
        size=(rows, columns),
        rescale=checked_rescale(slope, intercept),
        offset=offset,
        dtype=dtype,
        bits=bits,
        frame=number,
    )
