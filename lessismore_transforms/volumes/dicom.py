"""CT series stored as DICOM: one header read per file, slices ordered by position, pixels read straight from the file.

The header is parsed by pydicom. For uncompressed pixels the file offset is kept, so reading a slice later is one
read of the file; every other transfer syntax goes through pydicom's decoders, or GDCM where those are missing.
"""

from __future__ import annotations

import io
import logging
import math
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lessismore_transforms.errors import UserError
from lessismore_transforms.volumes.geometry import (
    LPS_TO_RAS,
    Array,
    Orientation,
    canonical_affine,
    canonical_orientation,
    slice_normal,
)
from lessismore_transforms.volumes.volume import Crc32, Skipped, Slice, StoredSlice, Volume, to_hu, volume_id
from lessismore_transforms.wording import plural

_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "ImageType", "Modality", "PatientID", "SeriesInstanceUID",
    "AcquisitionNumber", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness",
    "SamplesPerPixel", "NumberOfFrames", "Rows", "Columns", "PixelSpacing", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "RescaleIntercept", "RescaleSlope",
]  # fmt: skip
_TAG_OF = {keyword: Tag(keyword) for keyword in _TAGS}  # looked up once: pydicom takes microseconds for a keyword
_UNCOMPRESSED = {
    ExplicitVRLittleEndian: 12,
    ImplicitVRLittleEndian: 8,
}  # bytes before the pixels: tag, VR, length
_SAME_PLACE_MM = 1e-3
_SAME_DIRECTION = 1e-3  # of cosines
_GAP = 1.5  # a step larger than this many median steps is a gap
_TILT_DEGREES = 0.5


@dataclass(frozen=True, slots=True)
class Header:
    """The header of one slice in a DICOM file; lengths in mm, directions and positions in LPS+."""

    path: str
    patient: str
    series: str
    instance_uid: str
    acquisition: str
    number: float
    position: tuple[float, ...]
    directions: tuple[float, ...]  # of a row (to higher columns), then of a column
    pixel_spacing: tuple[float, ...]
    thickness: float
    size: tuple[int, int]
    rescale: tuple[float, float] | None
    offset: int
    dtype: str
    bits: int


def read_header(path: str, root: Path) -> Header | Skipped:
    """The header of one file below `root`, or the reason why it is no slice of a CT volume."""
    try:
        with (root / path).open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # oddities of values that nothing here reads
            forced = PurePosixPath(path).suffix.lower() in (".dcm", ".ima")
            dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAG_OF.values()), force=forced)
            return _header(path, dataset, file)
    except InvalidDicomError:
        return Skipped(path, "not an image in a known format")
    except OSError as error:
        return Skipped(path, f"cannot be opened: {error.strerror or error}")
    except Exception as error:  # pydicom raises many kinds on damaged headers; the file is listed, never dropped
        return Skipped(path, f"damaged DICOM header: {error}")


def _header(path: str, dataset: pydicom.FileDataset, file: BinaryIO) -> Header | Skipped:
    kind = _text(dataset, "SOPClassUID")
    if not kind:
        return Skipped(path, "not an image in a known format")
    modality = _text(dataset, "Modality")
    if kind == EnhancedCTImageStorage:
        return Skipped(path, "enhanced multi-frame CT is not read: convert it to NIfTI or to classic CT images")
    if modality != "CT" or kind != CTImageStorage:
        name = pydicom.uid.UID(kind).name
        return Skipped(path, f"no CT image: modality {modality or 'missing'}, {name}")
    if "LOCALIZER" in _text(dataset, "ImageType").split("\\"):
        return Skipped(path, "a localizer (scout view), not a slice")
    samples = _whole(dataset, "SamplesPerPixel", 1)
    if samples != 1:
        return Skipped(path, f"{samples} samples per pixel: a colour picture, not HU")
    if (frames := _numbers(dataset, "NumberOfFrames")) and frames[0] > 1:
        return Skipped(path, f"{frames[0]:.0f} frames in one classic CT file: convert it to NIfTI")
    position, directions = (
        _numbers(dataset, "ImagePositionPatient"),
        _numbers(dataset, "ImageOrientationPatient"),
    )
    if len(position) != 3 or len(directions) != 6 or not np.isfinite([*position, *directions]).all():
        return Skipped(path, "ImagePositionPatient or ImageOrientationPatient is missing, so its place is unknown")
    (a, b, c), (d, e, f) = directions[:3], directions[3:]
    if math.hypot(b * f - c * e, c * d - a * f, a * e - b * d) < 0.5:  # their cross product
        return Skipped(path, f"ImageOrientationPatient {list(directions)} spans no plane")
    rows, columns = _whole(dataset, "Rows"), _whole(dataset, "Columns")
    if not rows or not columns:
        return Skipped(path, "Rows or Columns is missing: no pixel data")
    bits_allocated = _whole(dataset, "BitsAllocated", 16)
    dtype = f"<{'i' if _whole(dataset, 'PixelRepresentation') else 'u'}{bits_allocated // 8}"
    guessed = ImplicitVRLittleEndian if dataset.original_encoding[0] else ExplicitVRLittleEndian
    syntax = dataset.file_meta.get("TransferSyntaxUID", guessed)
    offset = -1
    bits = _whole(dataset, "BitsStored", bits_allocated)
    usual = _whole(dataset, "HighBit", bits - 1) == bits - 1  # pydicom knows the other ways to lay out bits
    if usual and syntax in _UNCOMPRESSED and bits_allocated in (8, 16, 32):
        start = file.tell()
        element = file.read(_UNCOMPRESSED[syntax])
        if element[:4] != b"\xe0\x7f\x10\x00":
            return Skipped(path, "no pixel data")
        if int.from_bytes(element[-4:], "little") >= rows * columns * bits_allocated // 8:
            offset = start + len(element)
    slope, intercept = _numbers(dataset, "RescaleSlope"), _numbers(dataset, "RescaleIntercept")
    return Header(
        path=path,
        patient=str(dataset.get("PatientID", "")).strip(),
        series=_text(dataset, "SeriesInstanceUID"),
        instance_uid=_text(dataset, "SOPInstanceUID"),
        acquisition=_text(dataset, "AcquisitionNumber"),
        number=_optional(dataset, "InstanceNumber"),
        position=position,
        directions=directions,
        pixel_spacing=_numbers(dataset, "PixelSpacing"),
        thickness=_optional(dataset, "SliceThickness"),
        size=(rows, columns),
        rescale=(slope[0] if slope else 1.0, intercept[0]) if intercept else None,
        offset=offset,
        dtype=dtype,
        bits=bits,
    )


def _text(dataset: pydicom.Dataset, keyword: str) -> str:
    """A text element without pydicom's conversion, which costs more than the parsing; empty where it is absent."""
    element = dataset.get_item(_TAG_OF[keyword])
    if element is None:
        return ""
    value: Any = element.value
    text = value.decode("latin-1") if isinstance(value, bytes) else "\\".join(map(str, np.atleast_1d(value)))
    return text.strip(" \0") if value is not None else ""


def _whole(dataset: pydicom.Dataset, keyword: str, default: int = 0) -> int:
    """A 16-bit element without pydicom's conversion; the default where it is absent."""
    element = dataset.get_item(_TAG_OF[keyword])
    if element is None or element.value in (None, b""):
        return default
    if isinstance(element.value, bytes):
        return int.from_bytes(element.value[:2], "little" if element.is_little_endian else "big")
    return int(element.value)


def _numbers(dataset: pydicom.Dataset, keyword: str) -> tuple[float, ...]:
    text = _text(dataset, keyword)
    return tuple(float(part) for part in text.split("\\")) if text else ()


def _optional(dataset: pydicom.Dataset, keyword: str) -> float:
    """The first number of an element that can be missing; 0 where it is absent or no number."""
    try:
        value = next(iter(_numbers(dataset, keyword)), 0.0)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0


def build_volumes(headers: Sequence[Header], *, stored: bool = False) -> tuple[list[Volume], list[Skipped]]:
    """Volumes from the slices of any number of series, and the slices that are in no volume.

    A volume is a series. It is split by orientation and matrix size where one UID mixes them, and by
    AcquisitionNumber where positions repeat; the largest part keeps the series' own id.

    Args:
        headers: what `read_header` returned.
        stored: take the order of file names and the orientation as stored, like the released scripts.
    """
    by_series: dict[tuple[str, str, str], list[Header]] = defaultdict(list)
    for header in sorted(headers, key=lambda header: header.path):
        folder = "" if header.series else str(PurePosixPath(header.path).parent)
        by_series[header.series, header.patient, folder].append(header)
    volumes: list[Volume] = []
    skipped: list[Skipped] = []
    shared = Counter(series for series, _, _ in by_series)
    for (series, _, _), members in by_series.items():
        if not series or shared[series] > 1:  # no UID, or one that several patients share: the place tells them apart
            series = f"{series}/{members[0].path}"
        unique: dict[Any, Header] = {}
        for header in members:
            # Some anonymisers blank the UIDs or give all slices the same one: a copy also stands at the same place.
            first = unique.setdefault((header.instance_uid or header.path, header.position), header)
            if first is not header:
                skipped.append(Skipped(header.path, f"a copy of {first.path} (same SOPInstanceUID)"))
        parts: list[list[Header]] = []
        for group in _grids(list(unique.values())):
            if _repeats(group) and not any(map(_repeats, by_acquisition := _split(group, _acquisition))):
                parts.extend(by_acquisition)
            else:
                parts.append(group)
        parts.sort(key=len, reverse=True)
        for number, part in enumerate(parts):
            try:
                volume, left_out = _build(part, series if number == 0 else f"{series}/{number}", stored=stored)
            except ValueError as error:
                skipped.extend(Skipped(header.path, str(error)) for header in part)
                continue
            volumes.append(volume)
            skipped.extend(left_out)
    return volumes, skipped


def _grids(headers: list[Header]) -> list[list[Header]]:
    """Slices of equal size and, but for rounding, equal directions."""
    groups: list[list[Header]] = []
    for header in headers:
        for group in groups:
            turned = np.abs(np.subtract(header.directions, group[0].directions)).max()
            if header.size == group[0].size and turned < _SAME_DIRECTION:
                group.append(header)
                break
        else:
            groups.append([header])
    return sorted(groups, key=lambda group: (group[0].size, group[0].directions))


def _acquisition(header: Header) -> str:
    return header.acquisition


def _split(headers: list[Header], key: Callable[[Header], Any]) -> list[list[Header]]:
    groups: dict[Any, list[Header]] = defaultdict(list)
    for header in headers:
        groups[key(header)].append(header)
    return [groups[name] for name in sorted(groups)]


def _depths(headers: list[Header]) -> Array:
    row, column = np.asarray(headers[0].directions).reshape(2, 3)
    normal = np.cross(row, column)
    return np.asarray([header.position for header in headers] @ (normal / np.linalg.norm(normal)))


def _repeats(headers: list[Header]) -> bool:
    return bool((np.diff(np.sort(_depths(headers))) < _SAME_PLACE_MM).any())


def _build(headers: list[Header], series: str, *, stored: bool) -> tuple[Volume, list[Skipped]]:
    """One volume of slices of equal grid, and the slices left out because another one has the same position."""
    depths = _depths(headers)
    kept: list[int] = []
    skipped = []
    for i in sorted(
        range(len(headers)), key=lambda i: (round(float(depths[i]), 3), headers[i].number, headers[i].path)
    ):
        if kept and abs(depths[i] - depths[kept[-1]]) < _SAME_PLACE_MM:
            reason = f"at the same position as {headers[kept[-1]].path}, which was kept"
            skipped.append(Skipped(headers[i].path, reason))
        else:
            kept.append(i)
    ordered = [headers[i] for i in kept]
    if stored:
        ordered.sort(key=lambda header: header.path)
    first, last, count = ordered[0], ordered[-1], len(ordered)

    row, column = np.asarray(first.directions).reshape(2, 3)
    row_mm, column_mm = first.pixel_spacing if len(first.pixel_spacing) == 2 else (1.0, 1.0)
    step = (np.asarray(last.position) - first.position) / max(count - 1, 1)
    if count == 1 or not np.linalg.norm(step):
        step = np.cross(row, column) * (first.thickness or 1.0)
    affine = np.eye(4)
    affine[:3] = np.column_stack([row * column_mm, column * row_mm, step, first.position])
    affine = LPS_TO_RAS @ affine
    orientation = canonical_orientation(affine)
    if stored:
        orientation = Orientation(plane=orientation.plane)
    elif orientation.flip_slices:
        ordered.reverse()
    affine = canonical_affine(affine, (first.size[1], first.size[0], count), orientation)
    normal = slice_normal(affine)
    rows, columns = first.size[::-1] if orientation.transpose else first.size
    slices = tuple(
        StoredSlice(
            path=header.path,
            position_mm=float(np.dot(header.position, normal)),
            slope=header.rescale[0] if header.rescale else 1.0,
            intercept=header.rescale[1] if header.rescale else 0.0,
            offset=header.offset,
            dtype=header.dtype,
            bits=header.bits,
        )
        for header in ordered
    )
    volume = Volume(
        volume=volume_id(series),
        patient=first.patient or first.path.split("/")[0],
        series=series,
        format="dicom",
        path=os.path.commonpath([str(PurePosixPath(header.path).parent) for header in ordered]),
        shape=(count, rows, columns),
        affine=tuple(map(tuple, affine.tolist())),
        orientation=orientation,
        slices=slices,
        notes=_notes(ordered, np.sort([place.position_mm for place in slices]), len(skipped)),
    )
    return volume, skipped


def _notes(headers: list[Header], positions: Array, repeated: int) -> tuple[str, ...]:
    """Remarks on the geometry for the manifest; `positions` (mm) ascend. No paths: the report shows the notes."""
    notes = []
    steps = np.diff(positions)
    if len(steps):
        usual = float(np.median(steps))
        for i in np.flatnonzero(steps > _GAP * usual):
            missing = round(steps[i] / usual) - 1
            places = f"between positions {positions[i]:.1f} and {positions[i + 1]:.1f} mm"
            notes.append(f"gap of {steps[i]:.1f} mm {places} (slices are {usual:.1f} mm apart: {missing} missing)")
        if (steps < usual / _GAP).any():
            notes.append(f"uneven slice spacing: {steps.min():.2f} to {steps.max():.2f} mm")
        travel = np.ptp([header.position for header in headers], axis=0)
        tilt = float(np.degrees(np.arccos(np.clip(np.ptp(positions) / np.linalg.norm(travel), 0, 1))))
        if tilt > _TILT_DEGREES:
            notes.append(f"gantry tilt of {tilt:.1f} degrees: slices are taken as they are, sheared against each other")
    if repeated:
        what = plural(
            repeated, "slice at a position that was taken already is", "slices at positions that were taken already are"
        )
        notes.append(f"{repeated} {what} left out (listed as skipped)")
    if any(len(header.pixel_spacing) != 2 for header in headers):
        notes.append("PixelSpacing is missing: 1 mm taken")
    if any(header.rescale is None for header in headers):
        notes.append("RescaleSlope or RescaleIntercept is missing: stored values taken as HU")
    if len(rescales := Counter(header.rescale for header in headers)) > 1:
        notes.append(f"{len(rescales)} different rescales, each applied to its own slices")
    return tuple(notes)


def read(volume: Volume, root: Path, crc: Crc32) -> Iterator[Slice]:
    """The slices of `volume` in canonical order; a slice that cannot be read comes with the reason."""
    for index, stored in enumerate(volume.slices):
        rescale = (stored.slope, stored.intercept)
        try:
            data = (root / stored.path).read_bytes()
            crc.update(data)
            raw = _pixels(data, root / stored.path, stored, volume)
        except Exception as error:  # one bad file must not lose the volume; decoders raise many kinds
            yield Slice(index, np.empty((0, 0), np.int16), reason=f"{stored.path}: {error}")
            continue
        hu, replaced = to_hu(raw, *rescale, bits=stored.bits)
        yield Slice(index, volume.orientation.apply(hu), rescale, replaced)


def _pixels(data: bytes, path: Path, stored: StoredSlice, volume: Volume) -> Array:
    rows, columns = volume.shape[:0:-1] if volume.orientation.transpose else volume.shape[1:]
    if stored.offset < 0:
        return _decode(data, path, rows, columns)
    dtype = np.dtype(stored.dtype)
    have = max(len(data) - stored.offset, 0)
    if have < rows * columns * dtype.itemsize:
        raise UserError(f"truncated: {have} of {rows * columns * dtype.itemsize} bytes of pixels: copy it again")
    raw = np.frombuffer(data, dtype, rows * columns, stored.offset).reshape(rows, columns)
    if unused := 8 * dtype.itemsize - stored.bits:  # high bits may hold an overlay
        raw = (raw << unused) >> unused
    return raw


def _decode(data: bytes, path: Path, rows: int, columns: int) -> Array:
    """Compressed, deflated or big-endian pixels by pydicom, or GDCM where pydicom has no decoder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        try:
            raw = np.asarray(dataset.pixel_array)
        except (NotImplementedError, RuntimeError, ImportError):
            raw = _decode_with_gdcm(path, dataset)
    if raw.shape != (rows, columns):
        raise UserError(f"decoded to {raw.shape}, expected {(rows, columns)}")
    return raw


def _decode_with_gdcm(path: Path, dataset: pydicom.Dataset) -> Array:
    import itk  # takes seconds to import and is needed for few files

    logging.getLogger(__name__).debug("reading %s with GDCM", path)
    reader = itk.GDCMImageIO.New()
    hu = itk.array_from_image(itk.imread(str(path), imageio=reader))
    # GDCM applies the rescale; the stored values are asked for.
    stored = np.rint((hu - float(dataset.get("RescaleIntercept", 0))) / float(dataset.get("RescaleSlope", 1)))
    return np.asarray(stored.reshape(hu.shape[-2:]), dtype=np.int32)
