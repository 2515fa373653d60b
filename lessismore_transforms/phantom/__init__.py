"""Synthetic trunk CT with labels, as arrays, NIfTI or DICOM: for the demo, for tests, for probes.

Everything changes smoothly along z, so that neighbouring slices are near copies and distant ones are not: slice
reduction has something to do. Everything is drawn from formulas and a seed; no patient data went into it.
"""

from lessismore_transforms.phantom.files import write_demo_data, write_dicom, write_nifti
from lessismore_transforms.phantom.scan import LENGTH_MM, PhantomScan, phantom_scan
from lessismore_transforms.phantom.tasks import write_demo_task

__all__ = [
    "LENGTH_MM",
    "PhantomScan",
    "phantom_scan",
    "write_demo_data",
    "write_demo_task",
    "write_dicom",
    "write_nifti",
]
