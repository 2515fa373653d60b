"""OrganSMNIST (MedMNIST v2, Yang et al. 2023, doi 10.1038/s41597-022-01721-8): sagittal CT cut-outs of 11 organs.

One npz file holds train_images, train_labels, val_images and so on; all 2-D sets of MedMNIST are laid out so, and can
be given by `npz`, `classes` and `md5`. Names and checksums are those of the package medmnist 3.0.2 (Apache-2.0).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lessismore_transforms.classification.examples import SPLITS, Example, Listing
from lessismore_transforms.errors import UserError
from lessismore_transforms.options import parse_bool
from lessismore_transforms.volumes.pictures import with_channels
from numpy.typing import NDArray

CLASSES = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left",
    "lung-right", "pancreas", "spleen",
)  # fmt: skip
MD5 = {
    28: "9ab87b696fb54e2a387ebe992d6ed5f1",
    64: "53a6d115339d874c25e309a994ff46d3",
    128: "ded0c5fa01a95dc4978b956f613e9b8e",
    224: "b354719e553fbbb2513d5533f52a4cb1",
}

Array = NDArray[Any]


def listing(
    dataset_dir: str | Path,
    size: int = 28,
    npz: str | None = None,
    classes: Sequence[str] | None = None,
    md5: str = "official",
    download: bool | str = False,
) -> Listing:
    """The pictures of an npz file of MedMNIST, in its order and splits.

    Args:
        dataset_dir: the folder that holds the file.
        size: size of the official file: 28, 64, 128 or 224 pixels.
        npz: the file's name in `dataset_dir`; None for organsmnist.npz, or organsmnist_64.npz and so on.
        classes: their names in the order of the labels; None for the official 11.
        md5: checksum of the file: "official", 32 hex digits, or "any" to skip the check.
        download: fetch a missing official file by the package medmnist, which must be installed.

    Raises:
        UserError: the file is missing, has another checksum, or does not hold labelled pictures; or a download is asked
            for and medmnist is not installed.
    """
    if size not in MD5:
        raise UserError(f"expected a size of {', '.join(map(str, MD5))} pixels, found {size}: choose one of these")
    path = Path(dataset_dir) / (npz or ("organsmnist.npz" if size == 28 else f"organsmnist_{size}.npz"))
    if not path.is_file():
        if npz is not None or not parse_bool(download):
            raise UserError(
                f"expected the file {path}, found nothing: copy it there or, if official, give --download true"
            )
        _download(path.parent, size)
    _check_md5(path, MD5[size] if md5 == "official" else md5)
    images, labels = _read(path)
    names = CLASSES if classes is None else tuple(classes.split(",") if isinstance(classes, str) else classes)
    examples = tuple(
        Example(f"{split}/{number}", label, split)
        for split in SPLITS
        for number, label in enumerate(labels[split].tolist())
    )

    def read(example: Example, channels: int) -> NDArray[np.uint8]:
        return with_channels(images[example.split][int(example.image_id.partition("/")[2])], channels)

    return Listing("OrgMNIST", names, examples, read)


def _download(folder: Path, size: int) -> None:
    try:
        import medmnist
    except ModuleNotFoundError as error:
        raise UserError(
            "the download needs the package medmnist, which is not installed: "
            "pip install 'lessismore-transforms[download]', or copy the npz file there yourself"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    medmnist.OrganSMNIST(split="train", root=str(folder), size=size, download=True)


def _check_md5(path: Path, expected: str) -> None:
    if expected == "any":
        return
    if not re.fullmatch(r"[0-9a-fA-F]{32}", str(expected)):
        raise UserError(f'expected md5 "official", 32 hex digits or "any", found {expected!r}: give one of these')
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != expected.lower():
        raise UserError(
            f"expected {path} to have the md5 {expected.lower()}, found {found}: "
            "copy it again, or give --md5 any for a file of your own"
        )


def _read(path: Path) -> tuple[dict[str, Array], dict[str, Array]]:
    """The images, uint8 (N, H, W) or (N, H, W, 3), and the labels, int64 (N,), of each split."""
    wanted = [f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels")]
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:  # NumPy may leave it open
            arrays = {name: np.asarray(file[name]) for name in wanted if name in file}  # bytes where it is no array
    except Exception as error:  # numpy, zipfile and zlib raise many kinds
        raise UserError(  # without NumPy's message, which may advise to load unsafely
            f"{path} cannot be read as an npz file, it is damaged or holds other things than numbers: copy it again"
        ) from error
    if missing := [name for name in wanted if name not in arrays]:
        raise UserError(
            f"{path} lacks {', '.join(missing)}: expected images and labels of train, val and test as in MedMNIST"
        )
    images = {split: _images(path, f"{split}_images", arrays) for split in SPLITS}
    labels = {split: _labels(path, f"{split}_labels", arrays, len(images[split])) for split in SPLITS}
    return images, labels


def _images(path: Path, name: str, arrays: dict[str, Array]) -> Array:
    images = arrays[name]
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)):
        raise UserError(
            f"{path}: expected {name} to be uint8 (N, H, W) or (N, H, W, 3), found {images.dtype} {images.shape}: "
            "convert it, or name a file of 2-D pictures"
        )
    return images


def _labels(path: Path, name: str, arrays: dict[str, Array], count: int) -> Array:
    labels = arrays[name]
    if labels.dtype.kind not in "iu" or labels.shape not in ((count,), (count, 1)):
        raise UserError(
            f"{path}: expected {name} to be whole numbers ({count},) or ({count}, 1), found {labels.dtype} "
            f"{labels.shape}: give one class for each picture"
        )
    return labels.reshape(count).astype(np.int64)
