"""Slice reduction inside a MONAI pipeline for 2-D segmentation: `python example_pipeline.py [FOLDER]`.

FOLDER holds one folder per case with `ct.nii.gz` (or a folder `ct` of DICOM files) and a `label.nii.gz` that has the
same slices. Without FOLDER two synthetic cases are written to a temporary one.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from lessismore_transforms.phantom import phantom_scan, write_dicom, write_nifti
from lessismore_transforms.transforms import CTVolumeReader, SelectSlicesd
from monai.data import CacheDataset, DataLoader, list_data_collate
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandAffined, ScaleIntensityRanged, SplitDimd

KEYS = ("image", "label")


def pipeline() -> Compose:
    """The transforms: a case in, a list of its kept 2-D slices out."""
    return Compose(
        [
            # The reader turns image and label to the same axes, so that an index means the same slice in both.
            LoadImaged(KEYS, reader=CTVolumeReader()),
            EnsureChannelFirstd(KEYS),  # (1, W, H, S)
            # In HU, before any window: then these are the slices that `lessismore_transforms reduce` keeps.
            # The label keeps the slices of the image.
            SelectSlicesd(
                KEYS, method="hash", threshold=6, source_key="image"
            ),  # (1, W, H, kept); "image_slices" (1, kept)
            ScaleIntensityRanged("image", a_min=-160, a_max=240, b_min=0, b_max=1, clip=True),
            SplitDimd([*KEYS, "image_slices"], dim=-1, keepdim=False, list_output=True),  # kept times (1, W, H)
            # CacheDataset keeps what comes out up to here; the random rest is drawn anew for every slice and epoch.
            RandAffined(
                KEYS,
                prob=1.0,
                rotate_range=0.2,
                scale_range=0.1,
                translate_range=8,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
        ]
    )


def find_cases(folder: Path) -> list[dict[str, str]]:
    """One item per case of FOLDER, as MONAI's data sets take them."""
    return [
        {"image": str(next(label.parent.glob("ct*"))), "label": str(label), "case": label.parent.name}
        for label in sorted(folder.glob("*/label.nii.gz"))
    ]


def write_phantoms(folder: Path) -> None:
    """Write two scans with their bones as label, in formats and axis orders as they come: the reader's business."""
    for seed in range(2):
        scan = phantom_scan(seed, slices=48, size=96)
        case = folder / scan.patient
        if seed == 0:
            write_nifti(scan, case / "ct.nii.gz", axcodes="RAS")
        else:
            write_dicom(scan, case / "ct")
        write_nifti(replace(scan, hu=(scan.hu >= 240).astype(np.int16)), case / "label.nii.gz", axcodes="RAI")


def main(folder: Path) -> None:
    """Reduce the cases of a folder and go through one epoch."""
    cases = find_cases(folder)
    if not cases:
        sys.exit(f"error: expected a folder per case with ct.nii.gz and label.nii.gz in {folder}, found none: name it")
    dataset = CacheDataset(cases, pipeline(), num_workers=2, progress=False)
    for slices in dataset:  # an item of the data set is the list of one case's slices
        print(f"{slices[0]['case']}: kept the slices", *(int(item["image_slices"][0]) for item in slices))

    # batch_size counts cases; list_data_collate (DataLoader's default, too) makes one batch of all their slices.
    for batch in DataLoader(dataset, batch_size=2, shuffle=True, collate_fn=list_data_collate):
        print("batch:", *(f"{key} {tuple(batch[key].shape)}" for key in KEYS))  # (B, 1, W, H) each


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            write_phantoms(Path(temporary))
            main(Path(temporary))
