"""2-D pictures in files as 8-bit grey or colour: PNG, JPEG, TIFF of one page, and single DICOM files.

Rows and columns stay as stored, and EXIF's orientation is ignored, so that this reading, the hashes and the released
code see the same picture. A DICOM CT slice with a known orientation is turned as in `volumes`: the patient's front is
up, the patient's left is on the right.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels import pixel_array

from lessismore_transforms.errors import UserError
from lessismore_transforms.reduction.intensity import Window, min_max_uint8, parse_windows, window_uint8
from lessismore_transforms.volumes import dicom, read_slices
from lessismore_transforms.volumes.images import SUFFIXES
from lessismore_transforms.volumes.picture_files import is_grey, open_picture, why_unreadable
from lessismore_transforms.volumes.pixels import AIR_HU
from lessismore_transforms.volumes.volume import Volume, to_hu
from lessismore_transforms.wording import counted

__all__ = [
    "DICOM_SUFFIXES", "SUFFIXES", "TIFF_SUFFIXES", "PictureHeader", "check_window", "list_pictures", "patient_id",
    "read_header", "read_image", "read_picture", "with_channels",
]  # fmt: skip

DICOM_SUFFIXES = (".dcm", ".ima")
TIFF_SUFFIXES = (".tif", ".tiff")

_HEADER = ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "PatientID")

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class PictureHeader:
    """What the header of a picture tells.

    Args:
        height: rows as `read_image` gives them, pixels.
        width: columns as `read_image` gives them, pixels.
        channels: 1 for grey, 3 for colour.
        patient: PatientID of DICOM, empty where there is none. Private: write its hash only.
    """

    height: int
    width: int
    channels: int
    patient: str = ""


def read_picture(path: Path, channels: int = 1) -> Picture:
    """A PNG, JPEG or TIFF file of any mode as grey or colour; grey values of more than 8 bits are scaled by min-max.

    A palette is replaced by its colours, grey becomes three equal channels where colour is wanted, and an alpha channel
    is dropped, as in the released code: what lies below transparent pixels becomes visible.

    Args:
        path: the file.
        channels: 1 for grey, uint8 (H, W); 3 for colour, uint8 (H, W, 3).

    Raises:
        UserError: the file is missing or is no picture.
    """
    tiff = path.suffix.lower() in TIFF_SUFFIXES
    try:
        with open_picture(path, tiff=tiff) as image:
            if image.mode.startswith(("I", "F")):
                return with_channels(min_max_uint8(np.asarray(image)), channels)
            colour = image.convert("RGB")
            return np.asarray(colour if channels == 3 else colour.convert("L"))
    except Exception as error:  # decoders raise many kinds on damaged files
        reason = why_unreadable(error, formats=_formats(tiff))
        raise UserError(f"{path} cannot be read as an image ({reason}): fix it or take it away") from error


def read_image(path: Path, channels: int = 1, *, window: str | None = None) -> Picture:
    """A PNG, JPEG, TIFF or DICOM file as 8 bit; the suffix decides, and a file with an unknown suffix is read as DICOM.

    Args:
        path: the file.
        channels: 1 for grey, uint8 (H, W); 3 for colour, uint8 (H, W, 3).
        window: for DICOM that holds HU: a name or "level/width", or three of them with + between as three channels, see
            `parse_windows`; or None for min-max. Other DICOM files (no CT, no rescale to HU) are shown by min-max.

    Raises:
        UserError: the file is missing or is no single picture, there is no such window, or three are wanted in one
            channel.
    """
    shown = check_window(window, channels)
    if path.suffix.lower() in SUFFIXES + TIFF_SUFFIXES:
        return read_picture(path, channels)
    try:
        return with_channels(_read_dicom(path, shown), channels)
    except UserError as error:
        raise UserError(f"{path} cannot be read as a DICOM picture ({error}): fix it or take it away") from error
    except Exception as error:  # decoders raise many kinds on damaged files, with what they hold
        reason = (isinstance(error, OSError) and error.strerror) or "damaged"
        raise UserError(f"{path} cannot be read as a DICOM picture ({reason}): fix it or take it away") from error


def check_window(window: str | None, channels: int) -> tuple[Window, ...]:
    """The windows of HU that a text stands for, see `parse_windows`; none for None.

    Raises:
        UserError: there is no such window, or there are three for one channel.
    """
    windows = () if window is None else parse_windows(window)
    if len(windows) > channels:
        raise UserError(
            f"expected 3 channels for the {counted(len(windows), 'window')} {window}, found {channels}: give "
            "--channels 3, or one window"
        )
    return windows


def read_header(path: Path) -> PictureHeader:
    """Size and channels of a file that `read_image` reads, from its header alone.

    Raises:
        UserError: the file is missing or is no single picture.
    """
    suffix = path.suffix.lower()
    tiff = suffix in TIFF_SUFFIXES
    try:
        if tiff or suffix in SUFFIXES:
            with open_picture(path, tiff=tiff) as image:
                return PictureHeader(image.height, image.width, 1 if is_grey(image) else 3)
        return _dicom_header(path)
    except Exception as error:  # decoders raise many kinds on damaged files
        reason = why_unreadable(error, formats=_formats(tiff))
        raise UserError(f"{path} cannot be read as an image ({reason}): fix it or take it away") from error


def with_channels(picture: Picture, channels: int) -> Picture:
    """The picture as grey (H, W) for 1 channel or colour (H, W, 3) for 3; unchanged where it has these channels."""
    if channels == 1:
        return picture if picture.ndim == 2 else np.asarray(Image.fromarray(picture).convert("L"))
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


def list_pictures(folder: Path, *, with_dicom: bool = False, with_tiff: bool = False) -> list[str]:
    """Paths (posix, sorted) below a folder, of any depth, of the files that `read_image` reads.

    Hidden files and what Mac OS adds to archives are left out.

    Args:
        folder: where to look.
        with_dicom: list DICOM files too: those with a DICOM suffix, and others that begin like a DICOM file.
        with_tiff: list TIFF files too.

    Raises:
        UserError: it is not a folder.
    """
    if not folder.is_dir():
        raise UserError(
            f"expected a folder of pictures at {folder}, found {'a file' if folder.exists() else 'nothing'}"
        )
    below = [path.relative_to(folder) for path in folder.rglob("*")]
    visible = sorted(path for path in below if not any(p.startswith(".") or p == "__MACOSX" for p in path.parts))
    suffixes = SUFFIXES + (TIFF_SUFFIXES if with_tiff else ())
    return [path.as_posix() for path in visible if _is_picture(folder / path, suffixes, with_dicom=with_dicom)]


def patient_id(path: Path) -> str:
    """The PatientID in a DICOM file; empty where there is none or it cannot be read. Private: write its hash only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"], force=True)
        return str(header.get("PatientID", "")).strip()
    except Exception:  # a damaged file is refused when it is read as a picture
        return ""


def _formats(tiff: bool) -> str:
    return "TIFF that can be read" if tiff else "PNG or JPEG"


def _dicom_header(path: Path) -> PictureHeader:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_HEADER), force=True)
    height, width = (int(header.get(name) or 0) for name in _HEADER[:2])
    if height < 1 or width < 1:
        raise UserError("there is no picture in it")
    if (frames := int(header.get("NumberOfFrames") or 1)) > 1:
        raise UserError(f"expected one picture, found {counted(frames, 'frame')}")
    channels = 3 if header.get("SamplesPerPixel") == 3 else 1
    if (found := _as_slice(path)) is not None:
        _, height, width = found[0].shape  # turned upright
    return PictureHeader(height, width, channels, str(header.get("PatientID", "")).strip())


def _is_picture(path: Path, suffixes: tuple[str, ...], *, with_dicom: bool) -> bool:
    suffix = path.suffix.lower()
    if suffix in suffixes or (with_dicom and suffix in DICOM_SUFFIXES):
        return path.is_file()
    if not with_dicom or path.name.lower() == "dicomdir" or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _read_dicom(path: Path, windows: Sequence[Window]) -> Picture:
    """One DICOM picture, (H, W) or (H, W, 3): read as a slice of a CT volume if it is one, else by pydicom."""
    found = _as_slice(path)
    if found is None:
        return _read_other(path, windows)
    volume, header = found
    (ct_slice,) = read_slices(volume, path.parent)
    if ct_slice.reason:
        raise UserError(ct_slice.reason)
    return _shown(ct_slice.hu, windows, hu=header.rescale is not None)


def _as_slice(path: Path) -> tuple[Volume, dicom.Header] | None:
    """A DICOM file as a volume of its one slice, with its header; None where it holds no slice of CT, or several."""
    headers = dicom.read_headers(path.name, path.parent)
    header = headers[0]
    if len(headers) > 1 or not isinstance(header, dicom.Header):
        return None
    volumes, _ = dicom.build_volumes([header])
    return (volumes[0], header) if volumes else None


def _read_other(path: Path, windows: Sequence[Window]) -> Picture:
    dataset = pydicom.dcmread(path, force=True)
    stored: NDArray[Any] = pixel_array(dataset)
    colour = dataset.get("SamplesPerPixel") == 3  # two frames of three columns have the same shape
    if colour and stored.ndim == 3 and stored.dtype == np.uint8:
        return stored
    if stored.ndim != 2:
        raise UserError(f"expected one picture, found an array of shape {stored.shape}")
    hu = dataset.get("Modality") == "CT" and dataset.get("RescaleIntercept") is not None
    rescale = (float(dataset.get("RescaleSlope") or 1), float(dataset.RescaleIntercept)) if hu else (1.0, 0.0)
    picture = _shown(to_hu(stored, *rescale)[0], windows, hu=hu)
    return 255 - picture if dataset.get("PhotometricInterpretation") == "MONOCHROME1" and not hu else picture


def _shown(values: NDArray[Any], windows: Sequence[Window], *, hu: bool) -> Picture:
    """HU in their windows, (H, W) in one, (H, W, 3) in three; by min-max where there is none, or values are no HU."""
    if hu and windows:
        channels = [window_uint8(values, window) for window in windows]
        return channels[0] if len(channels) == 1 else np.stack(channels, axis=-1)
    return min_max_uint8(values, lower=AIR_HU if hu else None)  # below air is padding
