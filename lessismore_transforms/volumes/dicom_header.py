"""The header of a slice in a DICOM file, checked; a reason why there is none holds known words and numbers only.

A damaged header may hold a name or a birth date in any element, so that no text of it is repeated.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any, NamedTuple

import numpy as np
import pydicom
from pydicom._uid_dict import UID_dictionary
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
)

from lessismore_transforms.volumes.dicom_elements import Elements
from lessismore_transforms.wording import counted

TAGS = {
    keyword: int(Tag(keyword))
    for keyword in (
        "SOPClassUID", "SOPInstanceUID", "ImageType", "Modality", "PatientID", "SeriesInstanceUID",
        "AcquisitionNumber", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness",
        "SamplesPerPixel", "NumberOfFrames", "Rows", "Columns", "PixelSpacing", "BitsAllocated", "BitsStored",
        "HighBit", "PixelRepresentation", "RescaleIntercept", "RescaleSlope",
    )
}  # fmt: skip
MULTI_FRAME = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
# The usual ones of PS3.3 C.7.3.1.1.1: what a message may repeat.
_MODALITIES = frozenset(
    (
        "AU", "BMD", "CR", "CT", "DX", "ECG", "ES", "GM", "IO", "IVOCT", "IVUS", "KO", "M3D", "MG", "MR", "NM", "OCT",
        "OP", "OPT", "OT", "PR", "PT", "PX", "REG", "RF", "RG", "RTDOSE", "RTIMAGE", "RTPLAN", "RTRECORD", "RTSTRUCT",
        "SC", "SEG", "SM", "SR", "TG", "US", "XA", "XC",
    )
)  # fmt: skip
_UID = re.compile(r"[0-9.]{1,64}")
_LONGEST_ID = 64  # characters of a PatientID


class Header(NamedTuple):  # which passes between processes several times as fast as a dataclass
    """The header of one slice in a DICOM file; lengths in mm, directions and positions in LPS+."""

    path: str
    patient: str
    series: str
    instance_uid: str
    phases: tuple[str, ...]  # what may tell slices at one place apart, the surest first
    number: float
    position: tuple[float, ...]
    directions: tuple[float, ...]  # of a row (to higher columns), then of a column
    pixel_spacing: tuple[float, ...]
    thickness: float
    size: tuple[int, int]
    rescale: tuple[float, float] | None
    offset: int  # of the slice's pixels in the file, -1 where pydicom has to decode them
    dtype: str
    bits: int
    frame: int = -1  # in a file of several, counted from 0


class SliceError(ValueError):
    """Why a file is no slice of a CT volume, in known words."""


def slice_header(path: str, elements: Elements, patient: str) -> Header:
    """The header of a file of one slice.

    Raises:
        SliceError: it is no slice of a CT volume.
    """
    kind = elements.text(TAGS["SOPClassUID"])
    if not kind:
        raise SliceError("not an image in a known format")
    modality = elements.text(TAGS["Modality"])
    if modality != "CT" or kind != CTImageStorage:
        raise SliceError(_no_ct(modality, kind))
    if "LOCALIZER" in elements.text(TAGS["ImageType"]).split("\\"):
        raise SliceError("a localizer (scout view), not a slice")
    if (frames := elements.numbers(TAGS["NumberOfFrames"])) and frames[0] > 1:
        raise SliceError(f"{counted(int(frames[0]), 'frame')} in one classic CT file: convert it to NIfTI")
    position, directions = (elements.numbers(TAGS[f"Image{name}Patient"]) for name in ("Position", "Orientation"))
    check_place(position, directions)
    size, dtype, bits, raw = pixel_layout(elements)
    rows, columns = size
    offset = -1
    if raw:
        if elements.pixels < 0:
            raise SliceError("no pixel data")
        if elements.length >= rows * columns * np.dtype(dtype).itemsize:
            offset = elements.pixels
    return Header(
        path=path,
        patient=patient,
        series=uid(elements.text(TAGS["SeriesInstanceUID"])),
        instance_uid=uid(elements.text(TAGS["SOPInstanceUID"])),
        phases=(elements.text(TAGS["AcquisitionNumber"]),),
        number=elements.number(TAGS["InstanceNumber"]),
        position=position,
        directions=directions,
        pixel_spacing=elements.numbers(TAGS["PixelSpacing"]),
        thickness=elements.number(TAGS["SliceThickness"]),
        size=size,
        rescale=checked_rescale(elements.numbers(TAGS["RescaleSlope"]), elements.numbers(TAGS["RescaleIntercept"])),
        offset=offset,
        dtype=dtype,
        bits=bits,
    )


def pixel_layout(elements: Elements) -> tuple[tuple[int, int], str, int, bool]:
    """Rows and columns, type of the stored values, bits in use, and whether they lie in the file as in memory.

    Raises:
        SliceError: there are no such pixels of CT.
    """
    samples = elements.whole(TAGS["SamplesPerPixel"], 1)
    if samples != 1:
        raise SliceError(f"{counted(samples, 'sample')} per pixel: a colour picture, not HU")
    rows, columns = elements.whole(TAGS["Rows"]), elements.whole(TAGS["Columns"])
    if not rows or not columns:
        raise SliceError("Rows or Columns is missing: no pixel data")
    allocated = elements.whole(TAGS["BitsAllocated"], 16)
    bits = elements.whole(TAGS["BitsStored"], allocated)
    if allocated not in (8, 16, 32) or not 1 <= bits <= allocated:
        raise SliceError(f"{bits} of {counted(allocated, 'bit')} in use: no pixels of CT, which have 1 to 8, 16 or 32")
    signed = elements.whole(TAGS["PixelRepresentation"])
    if signed > 1:
        raise SliceError(f"PixelRepresentation {signed}: expected 0 or 1")
    dtype = f"<{'i' if signed else 'u'}{allocated // 8}"
    highest = elements.whole(TAGS["HighBit"], bits - 1)
    if bits <= highest < allocated:  # pydicom would read them as if they were the lowest bits
        raise SliceError(f"{counted(bits, 'bit')} in use up to bit {highest}, not the lowest ones: convert it to NIfTI")
    return (rows, columns), dtype, bits, highest == bits - 1 and elements.syntax in UNCOMPRESSED


def check_place(position: tuple[float, ...], directions: tuple[float, ...]) -> None:
    """Refuse a slice whose place in the patient is not known."""
    if len(position) != 3 or len(directions) != 6 or not all(map(math.isfinite, (*position, *directions))):
        raise SliceError("ImagePositionPatient or ImageOrientationPatient is missing, so its place is unknown")
    (a, b, c), (d, e, f) = directions[:3], directions[3:]
    if math.hypot(b * f - c * e, c * d - a * f, a * e - b * d) < 0.5:  # their cross product
        raise SliceError(f"ImageOrientationPatient {list(directions)} spans no plane")


def checked_rescale(slope: tuple[float, ...], intercept: tuple[float, ...]) -> tuple[float, float] | None:
    """Slope and intercept; None where there is no intercept, and stored values are taken as HU.

    Raises:
        SliceError: they take stored values to no HU.
    """
    if not intercept:
        return None
    first = slope[0] if slope else 1.0
    if not (math.isfinite(first) and math.isfinite(intercept[0]) and first):
        raise SliceError(f"RescaleSlope {first:g} and RescaleIntercept {intercept[0]:g} give no HU")
    return first, intercept[0]


def uid(text: str) -> str:
    """A UID as it is, or a digest of what stands in its place: that may be anything, also a name."""
    if not text or _UID.fullmatch(text):
        return text
    return f"other-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:16]}"


def patient_of(dataset: pydicom.Dataset) -> str:
    """The PatientID as text, "" where something else stands in its place; nothing that is long or cannot be printed."""
    element = dataset.get_item("PatientID")
    if element is None or not isinstance(element.value, (bytes, str)):
        return ""
    value: Any = dataset.get("PatientID", "")
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    elif isinstance(value, MultiValue):
        value = "\\".join(map(str, value))
    if not isinstance(value, str):
        return ""
    text = value.strip(" \0")
    if len(text) <= _LONGEST_ID and text.isprintable():
        return text
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def ascii_id(value: bytes) -> str | None:
    """A PatientID of the usual kind; None for one that pydicom has to decode."""
    if len(value) > _LONGEST_ID or not value.isascii():
        return None
    text = value.decode("ascii").strip(" \0")
    return text if text.isprintable() else None


def _no_ct(modality: str, kind: str) -> str:
    """The reason for what is not CT, in words of the standard only."""
    known = UID_dictionary.get(kind)
    name = known[0] if known else "an unknown kind of object"
    shown = modality if modality in _MODALITIES else "unknown" if modality else "missing"
    return f"no CT image: modality {shown}, {name}"
