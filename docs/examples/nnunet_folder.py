"""The volumes, or slices, that a selection keeps, as nnU-Net's raw data: `python nnunet_folder.py CASES OUT RAW`.

CASES has a folder for each case, with one CT (a NIfTI file or a folder of DICOM files) and its `label.nii.gz`; OUT is
the output of `reduce` for CASES; RAW is the new folder, such as nnUNet_raw/Dataset001_Bone. The format is that of
nnU-Net's documentation, "nnU-Net dataset format" (version 2): imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz and
dataset.json.

A volume goes in as a whole where the selection keeps enough of its slices (`--least`): a selection with `--scope all`
keeps next to none of a scan of which another one holds all slices nearly equal. With `--slices` only the kept slices go
in, for nnU-Net's configuration `2d` alone, as they are no longer neighbours.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import nibabel
import numpy as np
from monai.transforms import LoadImaged

from lessismore_transforms import CTVolumeReader, Manifest


def main(
    cases: Path, out: Path, raw: Path, labels: Sequence[str], *, selection: str, least: int, only_slices: bool
) -> None:
    """Write the data set, and tell what was left out."""
    if raw.exists() or not re.fullmatch(r"Dataset\d{3}_\w+", raw.name):
        sys.exit(f"error: expected a new folder named as Dataset001_NAME, found {raw}: name another one")
    manifest = Manifest.read(out)
    chosen = manifest.read_selection(selection).slices["kept"].to_numpy(dtype=bool)
    # The reader turns image and label to the same axes, those in which `reduce` counts slices.
    load = LoadImaged(("image", "label"), reader=CTVolumeReader())
    taken = 0
    for record, rows in manifest.by_volume():
        kept = rows["index"].to_numpy()[chosen[rows.index]]
        if len(kept) < least:
            print(f"left out: {record['path']} keeps {len(kept)} of {len(rows)} slices")
            continue
        case = cases / PurePosixPath(record["path"]).parts[0]
        files = {"image": cases / record["path"], "label": case / "label.nii.gz"}
        if not files["label"].is_file():
            sys.exit(f"error: expected the label {files['label']}, found none: draw it, or take the case away")
        item = load(files)  # (W, H, S) each
        image, label = (np.asarray(item[key]) for key in ("image", "label"))
        if image.shape != label.shape:
            sys.exit(f"error: expected a label of {image.shape} voxels, found {label.shape} in {files['label']}")
        if found := {*np.unique(label).tolist()} - {*range(len(labels) + 1)}:
            sys.exit(f"error: expected labels 0 to {len(labels)}, found {min(found):g} in {files['label']}: --labels")
        if only_slices:
            image, label = image[..., kept], label[..., kept]
        # The case is named by the volume's id: a name of a folder may be that of a person.
        name, affine = record["volume"], np.asarray(item["image"].affine)
        write(raw / "imagesTr" / f"{name}_0000.nii.gz", np.rint(image).astype(np.int16), affine)
        write(raw / "labelsTr" / f"{name}.nii.gz", label.astype(np.uint8), affine)
        taken += 1
    if not taken:
        sys.exit(f"error: expected a volume of which {selection!r} keeps {least} slices or more, found none: --least")
    about = {
        "channel_names": {"0": "CT"},  # by this name nnU-Net normalises as for CT
        "labels": {"background": 0, **{label: number for number, label in enumerate(labels, start=1)}},
        "numTraining": taken,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    print(f"{taken} of {len(manifest.volumes)} volumes in {raw}")


def write(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write an array (W, H, S) as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("cases", type=Path, metavar="CASES", help="folder of cases")
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder of reduce")
    parser.add_argument("raw", type=Path, metavar="RAW", help="new folder, named as Dataset001_NAME")
    parser.add_argument("--labels", nargs="+", default=["foreground"], help="names of the labels 1, 2, ...")
    parser.add_argument("--selection", default="default", help="which selection of OUT")
    parser.add_argument("--least", type=int, default=1, help="slices that a volume has to keep")
    parser.add_argument("--slices", dest="only_slices", action="store_true", help="only the kept slices, for 2d")
    main(**vars(parser.parse_args()))
