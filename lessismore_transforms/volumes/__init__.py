"""Find the CT volumes below a folder and stream each as slices in HU, order and orientation known (no MONAI)."""

from lessismore_transforms.volumes.discovery import Found, checksum, find_volumes, read_slices
from lessismore_transforms.volumes.volume import Crc32, Skipped, Slice, Volume, volume_id

__all__ = [
    "Crc32",
    "Found",
    "Skipped",
    "Slice",
    "Volume",
    "checksum",
    "find_volumes",
    "read_slices",
    "volume_id",
]
