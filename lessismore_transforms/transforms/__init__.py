"""MONAI transforms over the reduction: read a volume, keep the slices worth learning from, make 8-bit pictures."""

from lessismore_transforms.transforms.array import ScaleToUint8, SelectSlices, WindowToUint8
from lessismore_transforms.transforms.dictionary import (
    ScaleToUint8D,
    ScaleToUint8d,
    ScaleToUint8Dict,
    SelectSlicesD,
    SelectSlicesd,
    SelectSlicesDict,
    WindowToUint8D,
    WindowToUint8d,
    WindowToUint8Dict,
)
from lessismore_transforms.transforms.picture import LoadPictured
from lessismore_transforms.transforms.reader import CTVolumeReader

__all__ = [
    "CTVolumeReader",
    "LoadPictured",
    "ScaleToUint8",
    "ScaleToUint8D",
    "ScaleToUint8Dict",
    "ScaleToUint8d",
    "SelectSlices",
    "SelectSlicesD",
    "SelectSlicesDict",
    "SelectSlicesd",
    "WindowToUint8",
    "WindowToUint8D",
    "WindowToUint8Dict",
    "WindowToUint8d",
]
