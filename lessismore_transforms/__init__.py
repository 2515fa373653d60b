"""Reduce CT volumes to the slices worth learning from, and pre-train 2-D encoders on them with MONAI.

What users take is imported from here, `from lessismore_transforms import SliceSelectionDataset`. A name is looked up
where it is defined when it is first used, so importing the package is free and costs neither NumPy nor PyTorch.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

TYPE_CHECKING = False  # what `typing` calls so; its import would take longer than everything else here

# Where each name is defined. The block below says the same to type checkers; a test compares the two.
_MODULES = {
    "errors": ("ManifestError", "OutputError", "RunError", "UserError", "VolumeError"),
    "phantom.files": ("write_demo_data",),
    "phantom.scan": ("phantom_scan",),
    "pipeline.run": ("reduce_dataset",),
    "pipeline.settings": ("Encoder", "Settings"),
    "reduced.dataset": ("SliceSelectionDataset",),
    "reduced.manifest": ("Manifest",),
    "reduced.pictures": ("images_in",),
    "reduced.select": ("select",),
    "reduced.selection": ("Selection",),
    "reduced.store": ("fill_store",),
    "reduction.hashing": ("dhash", "hamming_distances"),
    "reduction.intensity": ("Window",),
    "reduction.near_duplicates": ("near_duplicates",),
    "reduction.target": ("Target",),
    "report.reduction_page": ("write_report",),
    "transforms.array": ("ScaleToUint8", "SelectSlices", "WindowToUint8"),
    "transforms.dictionary": ("ScaleToUint8d", "SelectSlicesd", "WindowToUint8d"),
    "transforms.reader": ("CTVolumeReader",),
    "volumes.discovery": ("Found", "find_volumes", "read_slices"),
    "volumes.volume": ("Slice", "Volume"),
    "weights.backbones": ("build_backbone", "read_metadata", "save_backbone"),
    "weights.layouts": ("read_backbone",),
}
_HOMES = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *sorted(_HOMES)]

if TYPE_CHECKING:
    from lessismore_transforms.errors import ManifestError as ManifestError
    from lessismore_transforms.errors import OutputError as OutputError
    from lessismore_transforms.errors import RunError as RunError
    from lessismore_transforms.errors import UserError as UserError
    from lessismore_transforms.errors import VolumeError as VolumeError
    from lessismore_transforms.phantom.files import write_demo_data as write_demo_data
    from lessismore_transforms.phantom.scan import phantom_scan as phantom_scan
    from lessismore_transforms.pipeline.run import reduce_dataset as reduce_dataset
    from lessismore_transforms.pipeline.settings import Encoder as Encoder
    from lessismore_transforms.pipeline.settings import Settings as Settings
    from lessismore_transforms.reduced.dataset import SliceSelectionDataset as SliceSelectionDataset
    from lessismore_transforms.reduced.manifest import Manifest as Manifest
    from lessismore_transforms.reduced.pictures import images_in as images_in
    from lessismore_transforms.reduced.select import select as select
    from lessismore_transforms.reduced.selection import Selection as Selection
    from lessismore_transforms.reduced.store import fill_store as fill_store
    from lessismore_transforms.reduction.hashing import dhash as dhash
    from lessismore_transforms.reduction.hashing import hamming_distances as hamming_distances
    from lessismore_transforms.reduction.intensity import Window as Window
    from lessismore_transforms.reduction.near_duplicates import near_duplicates as near_duplicates
    from lessismore_transforms.reduction.target import Target as Target
    from lessismore_transforms.report.reduction_page import write_report as write_report
    from lessismore_transforms.transforms.array import ScaleToUint8 as ScaleToUint8
    from lessismore_transforms.transforms.array import SelectSlices as SelectSlices
    from lessismore_transforms.transforms.array import WindowToUint8 as WindowToUint8
    from lessismore_transforms.transforms.dictionary import ScaleToUint8d as ScaleToUint8d
    from lessismore_transforms.transforms.dictionary import SelectSlicesd as SelectSlicesd
    from lessismore_transforms.transforms.dictionary import WindowToUint8d as WindowToUint8d
    from lessismore_transforms.transforms.reader import CTVolumeReader as CTVolumeReader
    from lessismore_transforms.volumes.discovery import Found as Found
    from lessismore_transforms.volumes.discovery import find_volumes as find_volumes
    from lessismore_transforms.volumes.discovery import read_slices as read_slices
    from lessismore_transforms.volumes.volume import Slice as Slice
    from lessismore_transforms.volumes.volume import Volume as Volume
    from lessismore_transforms.weights.backbones import build_backbone as build_backbone
    from lessismore_transforms.weights.backbones import read_metadata as read_metadata
    from lessismore_transforms.weights.backbones import save_backbone as save_backbone
    from lessismore_transforms.weights.layouts import read_backbone as read_backbone
else:  # not for type checkers, to which a misspelt name is an error

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
