"""CT volumes from the headers of DICOM slices: which slices belong together, in which order, and what is odd."""

from __future__ import annotations

import itertools
import os
import posixpath
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from lessismore_transforms.volumes.dicom_header import Header
from lessismore_transforms.volumes.geometry import (
    LPS_TO_RAS,
    Array,
    Orientation,
    canonical_affine,
    canonical_orientation,
    slice_normal,
)
from lessismore_transforms.volumes.volume import Skipped, StoredSlice, Volume, volume_id
from lessismore_transforms.wording import listed, plural

_SAME_PLACE_MM = 1e-3
_SAME_DIRECTION = 1e-3  # of cosines
_GAP = 1.5  # a step larger than this many usual steps is a gap
_BLOCK = 3  # equal steps in a row that are a spacing of their own
_TILT_DEGREES = 0.5


def build_volumes(headers: Sequence[Header], *, stored: bool = False) -> tuple[list[Volume], list[Skipped]]:
    """Volumes from the slices of any number of series, and the slices that are in no volume.

    A volume is a series. It is split by orientation and matrix size where one UID mixes them, and by temporal position,
    acquisition or turns where positions repeat (`_phases`); the largest part keeps the series' own id.

    Args:
        headers: what `read_headers` returned.
        stored: take the order of file names and the orientation as stored, like the released scripts.
    """
    by_series: dict[tuple[str, str, str], list[Header]] = defaultdict(list)
    for header in sorted(headers, key=lambda header: header.path):
        folder = "" if header.series else posixpath.dirname(header.path)
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
            first = unique.setdefault((header.instance_uid or header.path, header.frame, header.position), header)
            if first is not header:
                skipped.append(_left_out(header, f"a copy of {first.path} (same SOPInstanceUID)"))
        parts: list[list[Header]] = []
        for group in _grids(list(unique.values())):
            parts.extend(_phases(group))
        parts.sort(key=len, reverse=True)
        for number, part in enumerate(parts):
            try:
                volume, left_out = _build(part, series if number == 0 else f"{series}/{number}", stored=stored)
            except ValueError as error:
                skipped.extend(_left_out(header, str(error)) for header in part)
                continue
            volumes.append(volume)
            skipped.extend(left_out)
    return volumes, skipped


def _grids(headers: list[Header]) -> list[list[Header]]:
    """Slices of equal size and, but for rounding, equal directions."""
    groups: list[list[Header]] = []
    for header in headers:
        for group in groups:
            if header.size == group[0].size and _turned(header, group[0]) < _SAME_DIRECTION:
                group.append(header)
                break
        else:
            groups.append([header])
    return sorted(groups, key=lambda group: (group[0].size, group[0].directions))


def _turned(header: Header, other: Header) -> float:
    """By how much the cosines of two slices' directions differ at most."""
    return max(abs(a - b) for a, b in zip(header.directions, other.directions, strict=True))


def _phases(headers: list[Header]) -> list[list[Header]]:
    """The slices parted so that no place is in a part twice; together where nothing tells those at one place apart.

    A number that runs on from slice to slice tells them apart, but not which belong together: where it makes more parts
    than there are slices at a place, these take turns by their instance numbers.
    """
    if not _repeats(headers):
        return [headers]
    turns = _turns(headers)
    told = False
    for number in range(len(headers[0].phases)):
        groups: dict[tuple[str, ...], list[Header]] = defaultdict(list)
        for header in headers:
            groups[header.phases[number : number + 1]].append(header)
        parts = [groups[name] for name in sorted(groups)]
        if not any(map(_repeats, parts)):
            if len(parts) <= len(turns):
                return parts
            told = True
    return turns if told else [headers]


def _turns(headers: list[Header]) -> list[list[Header]]:
    """The first slice of each place, then the second of those that have one, and so on."""
    depths = _depths(headers)
    order = np.argsort(depths, kind="stable")
    starts = np.flatnonzero(np.diff(depths[order]) >= _SAME_PLACE_MM) + 1
    places = [
        sorted((headers[i] for i in place), key=lambda header: (header.number, header.path, header.frame))
        for place in np.split(order, starts)
    ]
    return [[header for header in turn if header is not None] for turn in itertools.zip_longest(*places)]


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
        range(len(headers)),
        key=lambda i: (round(float(depths[i]), 3), headers[i].number, headers[i].path, headers[i].frame),
    ):
        if kept and abs(depths[i] - depths[kept[-1]]) < _SAME_PLACE_MM:
            reason = f"at the same position as {headers[kept[-1]].path}, which was kept"
            skipped.append(_left_out(headers[i], reason))
        else:
            kept.append(i)
    ordered = [headers[i] for i in kept]
    if stored:
        ordered.sort(key=lambda header: (header.path, header.frame))
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
    normal, places = slice_normal(affine), np.array([header.position for header in ordered])
    rows, columns = first.size[::-1] if orientation.transpose else first.size
    slices = tuple(
        StoredSlice(
            path=header.path,
            position_mm=float(np.dot(place, normal)),
            slope=header.rescale[0] if header.rescale else 1.0,
            intercept=header.rescale[1] if header.rescale else 0.0,
            offset=header.offset,
            dtype=header.dtype,
            bits=header.bits,
            frame=header.frame,
        )
        for header, place in zip(ordered, places, strict=True)
    )
    volume = Volume(
        volume=volume_id(series),
        patient=first.patient or first.path.split("/")[0],
        series=series,
        format="dicom",
        path=_place(ordered),
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
    if len(positions) > 1:
        notes += _spacing_notes(positions)
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


def _spacing_notes(positions: Array) -> list[str]:
    """Blocks of different spacing, as a head scan has, gaps in them, and spacing that is uneven altogether."""
    steps = np.diff(positions)
    blocks = _blocks(steps)
    spacings = [float(steps[first:last].mean()) for first, last in blocks]
    notes, usual = [], np.full(len(steps), np.median(steps))
    if spacings and max(spacings) - min(spacings) > _same(min(spacings)):
        parts = [
            f"{spacing:.1f} mm apart from {positions[first]:.1f} to {positions[last]:.1f} mm"
            for (first, last), spacing in zip(blocks, spacings, strict=True)
        ]
        notes.append(f"blocks of different slice spacing: {listed(parts)}")
        nearest = [min(range(len(blocks)), key=lambda k: _distance(i, *blocks[k])) for i in range(len(steps))]
        usual = np.asarray(spacings)[nearest]
    for i in np.flatnonzero(steps > _GAP * usual):
        missing = round(steps[i] / usual[i]) - 1
        places = f"between positions {positions[i]:.1f} and {positions[i + 1]:.1f} mm"
        notes.append(f"gap of {steps[i]:.1f} mm {places} (slices are {usual[i]:.1f} mm apart: {missing} missing)")
    if (steps < usual / _GAP).any():
        notes.append(f"uneven slice spacing: {steps.min():.2f} to {steps.max():.2f} mm")
    return notes


def _blocks(steps: Array) -> list[tuple[int, int]]:
    """First step and one past the last of each run of equal steps that is long enough to be meant so."""
    ends = [0, *(np.flatnonzero(np.abs(np.diff(steps)) > _same(float(np.median(steps)))) + 1).tolist(), len(steps)]
    return [(first, last) for first, last in itertools.pairwise(ends) if last - first >= _BLOCK]


def _same(spacing: float) -> float:
    """By how much equal steps may differ, in mm: positions are rounded."""
    return 0.02 * spacing + 0.02


def _distance(step: int, first: int, last: int) -> int:
    """How many steps lie between a step and a block."""
    return max(first - step, step - last + 1, 0)


def _left_out(header: Header, reason: str) -> Skipped:
    return Skipped(header.path, reason if header.frame < 0 else f"frame {header.frame + 1}: {reason}")


def _place(headers: list[Header]) -> str:
    """The folder that holds all slices, the file where there is one, or `.` for the data set's own folder."""
    paths = {header.path for header in headers}
    if headers[0].frame >= 0 and len(paths) == 1:
        return headers[0].path
    return os.path.commonpath({posixpath.dirname(path) or "." for path in paths}) or "."
