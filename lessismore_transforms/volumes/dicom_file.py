"""One DICOM file: the headers of its slices, or the reason why it holds none.

A file of the usual kind is read by a small walk over its elements; pydicom reads every other one, and judges wherever
the walk finds something odd.
"""

from __future__ import annotations

import io
import warnings
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from lessismore_transforms.volumes.dicom_elements import Elements, meta, walk
from lessismore_transforms.volumes.dicom_frames import frame_headers
from lessismore_transforms.volumes.dicom_header import (
    MULTI_FRAME,
    TAGS,
    Header,
    SliceError,
    ascii_id,
    patient_of,
    slice_header,
)
from lessismore_transforms.volumes.volume import Skipped

LARGEST_INFLATED = 1 << 30  # bytes: a deflated file may hold a thousand times its size
_WANTED = np.sort([*TAGS.values()])
_HEADER_BYTES = 1 << 14  # of a usual file; what is longer is left to pydicom


def read_headers(path: str, root: Path) -> list[Header | Skipped]:
    """The headers of all slices in one file below `root`, or the reason why it holds none of a CT volume."""
    try:
        with io.FileIO(f"{root}/{path}") as file:
            return _headers(path, file)
    except SliceError as refused:
        return [Skipped(path, str(refused))]
    except InvalidDicomError:
        return [Skipped(path, "not an image in a known format")]
    except OSError as error:
        return [Skipped(path, f"cannot be opened: {error.strerror or 'the file system refuses'}")]
    except Exception:  # pydicom raises many kinds on damaged headers; the file is listed, never dropped
        return [Skipped(path, "damaged DICOM header: copy the file again, or convert it to NIfTI")]


def _headers(path: str, unbuffered: io.FileIO) -> list[Header | Skipped]:
    start = unbuffered.read(_HEADER_BYTES)
    elements = walk(start, _WANTED)
    patient = None if elements is None else ascii_id(elements.value(TAGS["PatientID"]))
    if elements is not None and patient is not None and elements.text(TAGS["SOPClassUID"]) == CTImageStorage:
        return [slice_header(path, elements, patient)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # oddities of values that nothing here reads
        file = inflatable(io.BufferedReader(unbuffered), start)
        file.seek(0)
        forced = PurePosixPath(path).suffix.lower() in (".dcm", ".ima")
        dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(TAGS.values()), force=forced)
        elements = _elements_of(dataset, file)
        if elements.text(TAGS["SOPClassUID"]) in MULTI_FRAME:
            return frame_headers(path, elements, patient_of(dataset), file)
        return [slice_header(path, elements, patient_of(dataset))]


def inflatable(file: BinaryIO, start: bytes) -> BinaryIO:
    """The file itself, once it is known that what is in a deflated one is of a sound size.

    Raises:
        SliceError: more would come out of it than any CT image holds.
    """
    syntax, place = meta(start)
    if syntax != DeflatedExplicitVRLittleEndian:
        return file
    file.seek(place)
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while block := file.read(1 << 20):
        while block:
            size += len(inflater.decompress(block, 1 << 24))
            block = inflater.unconsumed_tail
            if size > LARGEST_INFLATED:
                raise SliceError(f"deflated data of more than {LARGEST_INFLATED >> 20} MB: convert it to NIfTI")
    file.seek(0)
    return file


def _elements_of(dataset: pydicom.FileDataset, file: BinaryIO) -> Elements:
    """What pydicom found, as the walk gives it; the file stands where the pixels begin."""
    values, place = {}, file.tell()
    little = True
    for tag in TAGS.values():
        element = dataset.get_item(tag)
        if element is not None and isinstance(element.value, bytes):  # a sequence in its place is damage
            values[tag] = element.value
            little = getattr(element, "is_little_endian", True)
        elif element is not None and isinstance(element.value, (str, int)):
            values[tag] = str(element.value).encode("latin-1", "replace")
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", "")) or ExplicitVRLittleEndian
    pixels = file.read(12)
    offset, length = -1, 0
    if pixels[:4] == b"\xe0\x7f\x10\x00":
        # What is there counts, not what the label says: pydicom reads the elements so too. As a length, the letters of
        # these types would be of gigabytes. The two bytes behind them are reserved, and hold anything in damaged files.
        explicit = pixels[4:6] in (b"OB", b"OW", b"UN")
        offset, length = (
            place + (12 if explicit else 8),
            int.from_bytes(pixels[8:12] if explicit else pixels[4:8], "little"),
        )
    return Elements(values, syntax, offset, length, little)
