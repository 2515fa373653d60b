"""The volumes of `lessismore_transforms.volumes` as MONAI reads images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple
from numpy.typing import NDArray

from lessismore_transforms.errors import VolumeError
from lessismore_transforms.volumes import read_slices
from lessismore_transforms.volumes.item_volume import file_format, volume_from_paths

_SUFFIXLESS = ("", ".dcm", ".ima")  # DICOM files are often called by a bare number, such as 1.2.840.113


class CTVolumeReader(ImageReader):  # type: ignore[misc]
    """Read a CT volume in HU, in the order and orientation that the reduction works in.

    Reads a NIfTI, NRRD or MetaImage file, a folder that holds one DICOM series, or the list of a volume's DICOM or
    PNG slices, which is what `find_volumes(root).volumes[i].as_dict(root)["image"]` gives. DICOM slices are ordered
    by position and rescaled one by one; several series in a folder are an error, never stacked or guessed at.

    The array is float32 (x, y, z) in HU: for axial slices x runs to the patient's left, y to posterior, z to the head
    (see `volumes.geometry`), and the RAS+ affine in mm is that of this grid. NaN and infinite voxels get the lowest
    finite value of their slice. Remarks on odd geometry (gaps in mm, gantry tilt) are in the metadata under `notes`.

    Examples:
        >>> from monai.transforms import LoadImaged
        >>> load = LoadImaged("image", reader=CTVolumeReader())

    Args:
        series: SeriesInstanceUID of the volume to take where a folder or a list holds several.
    """

    def __init__(self, series: str | None = None) -> None:
        super().__init__()
        self.series = series

    def verify_suffix(self, filename: Sequence[str | Path] | str | Path) -> bool:
        """Whether the names are those of folders or of files in a format that is read here."""
        return all(
            Path(name).is_dir()
            or file_format(name) != "dicom"
            or Path(name).suffix.lower() in _SUFFIXLESS
            or Path(name).suffix[1:].isdigit()
            for name in ensure_tuple(filename)
        )

    def read(self, data: Sequence[str | Path] | str | Path) -> tuple[str | Path, ...]:
        """Take the paths of one volume; `get_data` opens them.

        An exception raised here would make `LoadImage` try its other readers, which guess where several series lie in
        one folder, so that a mistake would pass unseen.
        """
        return tuple(ensure_tuple(data))

    def get_data(self, img: Sequence[str | Path]) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The array (x, y, z) in HU and its metadata.

        Args:
            img: what `read` returned.

        Raises:
            UserError: the paths stand for no volume or for several.
            VolumeError: the volume or one of its slices cannot be read.
        """
        volume, root = volume_from_paths(img, series=self.series)
        stack = np.empty(volume.shape, dtype=np.float32)  # (S, H, W)
        for ct_slice in read_slices(volume, root):
            if ct_slice.reason:
                raise VolumeError(f"{ct_slice.reason}: a volume with a hole cannot be loaded; fix or remove the slice")
            stack[ct_slice.index] = ct_slice.hu
        affine = np.asarray(volume.affine)
        meta = {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(volume.shape[::-1]),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),  # MONAI's "no_channel"
            "spacing": np.asarray(volume.spacing_mm[::-1]),
            "notes": "; ".join(volume.notes),
        }
        return stack.transpose(2, 1, 0), meta
