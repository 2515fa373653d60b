"""The released pipeline of Wolf et al. 2024, written anew and plainly: the benchmark's baseline and the tests' oracle.

Volumes become PNG files, one per slice, in one flat folder (`convert_dicom`, `convert_nifti`); the PNG files are
hashed, and of each volume the greedy exemplars are copied (`reduce_pngs`). Names, order, scaling and rounding are
those of the released scripts (github.com/Wolfda95/Less_is_More, Apache-2.0); none of their code is here, and no
function of `lessismore_transforms` is used. Where they lose volumes (ids beyond a count) or
wrap integers, this does not.

    python scripts/released_way.py nifti|dicom|png DATASET OUT --threshold 6
"""

from __future__ import annotations

import argparse
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import imagehash
import nibabel
import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image

_FEWEST_FILES = 11  # a series folder with fewer is taken for an X-ray
_PADDING = -2000  # stored value outside the field of view of some scanners


def convert_dicom(dataset: Path, png_dir: Path) -> None:
    """Write each slice of PATIENT/STUDY/SERIES/*.dcm as PATIENT_N.png, N counting through the whole data set."""
    number = 0
    for patient, series in _leaves(dataset, depth=3):
        files = sorted(series.iterdir())
        if len(files) < _FEWEST_FILES:
            continue
        for path in files:
            if path.name.endswith(".dcm"):
                _write(png_dir / f"{patient}_{number}.png", stretch(dicom_hu(path), epsilon=0.0))
                number += 1


def convert_nifti(dataset: Path, png_dir: Path) -> None:
    """Write each slice of PATIENT/STUDY/CT.nii.gz as PATIENT_N_I.png, N counting the studies from 1, I the slices."""
    for study_number, (patient, study) in enumerate(_leaves(dataset, depth=2), start=1):
        if (study / "CT.nii.gz").is_file():
            voxels = nibabel.load(study / "CT.nii.gz").get_fdata()  # (x, y, z), float64, with slope and intercept
            for index, image in enumerate(voxels.transpose(2, 1, 0)):
                _write(png_dir / f"{patient}_{study_number}_{index}.png", stretch(image, epsilon=1e-5))


def dicom_hu(path: Path) -> npt.NDArray[np.int16]:
    """One slice in HU, int16 (rows, columns): padding to 0 before the rescale, fractions cut off after the slope."""
    dataset = pydicom.dcmread(path)
    image = dataset.pixel_array.astype(np.int16)
    image[image == _PADDING] = 0
    slope, intercept = dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", -1024)
    if slope != 1:
        image = (float(slope) * image.astype(np.float64)).astype(np.int16)
    hu: npt.NDArray[np.int16] = image + np.int16(intercept)
    return hu


def stretch(image: npt.NDArray[np.generic], epsilon: float) -> npt.NDArray[np.float64]:
    """Min-max of a slice to 0..255 in float64; without epsilon a constant one becomes NaN, which is written as 0."""
    values = image.astype(np.float64)
    with np.errstate(invalid="ignore"):
        stretched: npt.NDArray[np.float64] = 255 * (values - values.min()) / ((values.max() - values.min()) + epsilon)
    return stretched


def reduce_pngs(png_dir: Path, save_dir: Path, threshold: int) -> list[str]:
    """Copy the exemplars of each volume of a flat folder of PNG files; returns their names, volume by volume."""
    save_dir.mkdir(parents=True)
    volumes: dict[str, list[str]] = defaultdict(list)
    for name in sorted(path.name for path in png_dir.glob("*.png")):
        volumes[volume_of(name)].append(name)
    kept = []
    for names in volumes.values():
        hashes = np.array([hash_png(png_dir / name) for name in names])
        kept += [names[index] for index in exemplars(hashes, threshold)]
    for name in kept:
        shutil.copy2(png_dir / name, save_dir / name)
    return kept


def hash_png(path: Path) -> npt.NDArray[np.bool_]:
    """The difference hash of a picture, bool (64,)."""
    with Image.open(path) as image:
        bits: npt.NDArray[np.bool_] = imagehash.dhash(image.convert("L")).hash.ravel()
    return bits


def volume_of(name: str) -> str:
    """The part of a name before the slice's number: LIDC-IDRI-0001 (a patient), PETCT_20a607649d_111 (a study)."""
    return name.rpartition("_")[0]


def exemplars(hashes: npt.NDArray[np.bool_], threshold: int) -> list[int]:
    """Indices of hashes (n, 64) that stay when the first remaining one removes all within the threshold, repeatedly."""
    remaining = np.arange(len(hashes))
    kept = []
    while len(remaining):
        kept.append(int(remaining[0]))
        distances = np.count_nonzero(hashes[remaining] != hashes[remaining[0]], axis=1)
        remaining = remaining[distances > threshold]
    return kept


def run(kind: str, dataset: Path, out: Path, threshold: int) -> list[str]:
    """Both steps: OUT/png holds the converted slices (not for `png`, which has them), OUT/kept the exemplars."""
    png_dir = dataset
    if kind != "png":
        png_dir = out / "png"
        png_dir.mkdir(parents=True)
        {"dicom": convert_dicom, "nifti": convert_nifti}[kind](dataset, png_dir)
    return reduce_pngs(png_dir, out / "kept", threshold)


def _leaves(dataset: Path, depth: int) -> Iterator[tuple[str, Path]]:
    """Each folder `depth` levels below the data set with the name of its patient, the first of them; sorted."""
    for patient in _folders(dataset):
        below = [patient]
        for _ in range(depth - 1):
            below = [folder for parent in below for folder in _folders(parent)]
        for folder in below:
            yield patient.name, folder


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir())


def _write(path: Path, image: npt.NDArray[np.float64]) -> None:
    if not cv2.imwrite(str(path), image):  # it rounds half to even, saturates and turns NaN into 0
        raise OSError(f"OpenCV cannot write {path}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0], allow_abbrev=False)
    parser.add_argument("kind", choices=("nifti", "dicom", "png"))
    parser.add_argument("dataset", type=Path, help="PATIENT/STUDY/CT.nii.gz, PATIENT/STUDY/SERIES/*.dcm, or *.png")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--threshold", type=int, default=6, help="remove slices within this many bits (default: 6)")
    options = parser.parse_args()
    kept = run(options.kind, options.dataset, options.out, options.threshold)
    print(f"kept slices: {len(kept)}, in {options.out / 'kept'}")


# OpenCV warns that it makes 8 bits of float images, which is the point here.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
if __name__ == "__main__":
    main()
