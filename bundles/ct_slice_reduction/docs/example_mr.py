"""Slice reduction of MR volumes: `python example_mr.py [FOLDER]`.

MR has no HU: the scale differs from scan to scan, and a few very bright voxels (vessels, fat near the coil) leave the
rest of their slice dark. So a window between two percentiles of the volume comes first. FOLDER holds NIfTI files;
without it a synthetic head is written to a temporary one.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
from lessismore_transforms.transforms import SelectSlicesd
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, ScaleIntensityRangePercentilesd

# CTVolumeReader is for CT; SelectSlicesd takes order and orientation from the affine, whoever read the volume.
LOAD = (
    LoadImaged("image", reader="NibabelReader"),  # "ITKReader" for a folder with one DICOM series
    EnsureChannelFirstd("image"),  # (1, x, y, z)
)
WINDOW = ScaleIntensityRangePercentilesd("image", lower=1, upper=99, b_min=0, b_max=255, clip=True)
SELECT = SelectSlicesd("image", method="hash", threshold=6)


def main(folder: Path) -> None:
    """Reduce every volume of a folder, with the window and, to compare, without it."""
    paths = sorted(folder.rglob("*.nii*"))
    if not paths:
        sys.exit(f"error: expected NIfTI files below {folder}, found none: name another folder")
    for path in paths:
        kept = Compose([*LOAD, WINDOW, SELECT])({"image": str(path)})
        plain = Compose([*LOAD, SELECT])({"image": str(path)})
        print(f"{path.name}: what was kept, as a volume {tuple(kept['image'].shape)}")
        print("  with the percentile window:", *kept["image_slices"][0])
        print("  without:", *plain["image_slices"][0])


def write_head(path: Path) -> None:
    """Write an MR-like head: an ellipsoid of folded tissue, uneven coil, Rician noise, and a bright vessel."""
    random = np.random.default_rng(0)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in (80, 96, 64)), indexing="ij", sparse=True)
    radius = np.sqrt((x / 0.75) ** 2 + (y / 0.9) ** 2 + (z / 1.1) ** 2)  # 1 on the skin
    folds = np.sin(13 * x + 4 * z) * np.sin(11 * y - 5 * z) * np.sin(9 * z)
    tissue = np.where(radius < 0.8, 500 + 150 * np.tanh(4 * folds), 80)  # brain in fluid and bone ...
    tissue = np.where((radius > 0.9) & (radius < 1), 700, tissue)  # ... under the fat of the scalp
    tissue = np.where(np.hypot(x / 0.12, (y - 0.2) / 0.25) + abs(z) < 0.6, 150, tissue)  # ventricle
    signal = np.where(radius < 1, tissue, 0) * (1 + 0.3 * y)  # the coil hears its own side best
    signal = np.where(np.hypot(x - 0.3 * z, y + 0.3) < 0.03, 6000, signal) * (radius < 0.95)
    noise = random.normal(0, 15, (2, *signal.shape))
    voxels = np.hypot(signal + noise[0], noise[1]).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.2, 2.2, 2.5, 1.0])), path)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            write_head(Path(temporary) / "head.nii.gz")
            main(Path(temporary))
