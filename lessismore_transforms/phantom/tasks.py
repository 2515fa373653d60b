"""Small labelled data sets of 2-D pictures in the layouts of the classification bundles, for the demo and for tests.

A patient is in one split only, but small chests of different patients look alike. The labels can be learned, though
not easily from a few dozen pictures.
"""

from __future__ import annotations

import csv
import math
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lessismore_transforms.atomic import TEMPORARY, writing
from lessismore_transforms.errors import UserError
from lessismore_transforms.phantom.radiograph import chest_xrays
from lessismore_transforms.phantom.scan import phantom_scan
from lessismore_transforms.phantom.tissue import tissue
from lessismore_transforms.reduction.intensity import WINDOWS, window_uint8

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Hounsfield = NDArray[np.float64]

REGIONS = ("pelvis", "abdomen", "chest")  # the classes of the OrganSMNIST task, in the order of their labels
PICTURES = 3  # of a patient, in all tasks but the colorectal one
TISSUES = {  # nuclei in 32 x 32 pixels, their radius in pixels, and how pink the ground is
    "01_TUMOR": (14, 2.6, 0.9), "02_STROMA": (2, 1.4, 1.0), "03_COMPLEX": (7, 1.8, 1.0), "04_LYMPHO": (24, 1.3, 0.7),
    "05_DEBRIS": (4, 0.8, 0.6), "06_MUCOSA": (9, 2.0, 0.4), "07_ADIPOSE": (0.6, 1.5, 0.15), "08_EMPTY": (0, 1, 0),
}  # fmt: skip
_SPLITS = {"train": 2, "val": 1, "test": 1}  # of four patients of a class
_SLICES = 12  # of a scan: 40 mm apart, so that pictures of a patient are no copies
_ORGANS_SIZE = 28
_FIELD_MM = 220.0  # of a picture of a head
_SEEDS = {  # nobody is in two tasks or in the demo data
    "covid19": 10_000, "organsmnist": 20_000, "brain": 30_000, "breakhis": 40_000, "colorectal": 50_000,
    "pneumonia": 60_000,
}  # fmt: skip


def write_demo_task(folder: Path | str, task: str, *, patients: int = 16, size: int = 64, seed: int = 0) -> Path:
    """Write the pictures of a task and return their folder, written whole or not at all.

    Each patient gives `PICTURES` pictures; half of the patients are for training, a quarter each for validation and
    test.

    - `covid19`: CT_COVID/ and CT_NonCOVID/ of PNG and Data-split/ of lists, as COVID-CT; chests with and without
      ground-glass opacities, in a lung window. The name of a file begins with its source paper, one for each patient.
    - `organsmnist`: organsmnist.npz, as MedMNIST; crops of 28 x 28 pixels, labels (N, 1) are positions in `REGIONS`.
    - `brain`: head_ct/ of PNG and labels.csv with id, patient, hemorrhage; heads with and without a hemorrhage, in a
      brain window. No split: that is what folds are for.
    - `breakhis`: train/ and test/ with benign/ and malignant/ of colour PNG with the names of BreaKHis, magnified 400
      times but for one of each patient; malignant nuclei are larger and more. Some slides have parts.
    - `colorectal`: a folder for each of `TISSUES` of colour TIFF, one tile of each slide; a slide counts as a patient.
    - `pneumonia`: train/, val/ and test/ with NORMAL/ and PNEUMONIA/ of JPEG with the names of Kermany et al. 2018.

    Args:
        folder: a new or empty folder; its parent is made if absent.
        task: one of these.
        patients: a multiple of 8, so that both classes are in each split.
        size: rows and columns, save for organsmnist.
        seed: the same seed gives the same bytes.

    Raises:
        UserError: the task is unknown, the number of patients is no multiple of 8, or the folder is not empty.
        OutputError: the folder cannot be written.
    """
    if task not in _WRITERS:
        raise UserError(f"expected a task out of {', '.join(_WRITERS)}, found {task!r}; name one of these")
    if patients < 8 or patients % 8:
        raise UserError(f"expected patients to be a multiple of 8, found {patients}; 16 is usual")
    folder = Path(folder)
    with writing(folder):
        empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not empty:
        raise UserError(f"expected a new or empty folder, found {folder}; choose another one")
    partial = folder.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        with writing(folder):
            partial.mkdir(parents=True)
            _WRITERS[task](partial, patients, size, _SEEDS[task] + seed)
            partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write_covid(folder: Path, patients: int, size: int, seed: int) -> None:
    lists: dict[tuple[str, str], list[str]] = {}
    for number, split in enumerate(_splits(patients)):
        kind = ("COVID", "NonCOVID")[number % 2]
        place = folder / f"CT_{kind}"
        place.mkdir(exist_ok=True)
        # An ill and a healthy patient share a body, so that a few dozen bodies do not give the label away.
        chests = _chests(seed + number // 2, size, opacities=kind == "COVID")
        for index, picture in enumerate(chests):
            name = f"2020.03.{number + 1:02d}.2003{number:04d}-p5-{20 + number}%{index}.png"
            Image.fromarray(picture).save(place / name)
            lists.setdefault((kind, split), []).append(name)
    for (kind, split), names in lists.items():
        place = folder / "Data-split" / kind
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{split}CT_{kind}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _chests(seed: int, size: int, *, opacities: bool) -> list[Pixels]:
    """The slices of a patient that show most lung, with or without ground-glass opacities."""
    rng = np.random.default_rng(seed)
    scan = phantom_scan(seed, slices=_SLICES, size=size)
    trunk = np.arange(size)[:, None] < size * 2 / 3  # without the foam of the table, as thin as a lung
    lungs = (scan.hu > -960) & (scan.hu < -650) & trunk  # (S, H, W)
    chosen = np.sort(np.argsort(-lungs.sum(axis=(1, 2)), kind="stable")[:PICTURES])
    pictures = []
    for index in chosen.tolist():
        hu, lung = scan.hu[index].astype(np.float64), lungs[index]
        if opacities:
            hu += lung * _blots(np.argwhere(lung), size, rng)
        pictures.append(window_uint8(hu, WINDOWS["lung"]))
    return pictures


def _blots(places: NDArray[np.intp], size: int, rng: np.random.Generator) -> Hounsfield:
    """The HU (H, W) by which a lung is denser around a few of its pixels (n, 2)."""
    rows, columns = np.mgrid[:size, :size]
    added = np.zeros((size, size))
    for row, column in rng.choice(places, rng.integers(4, 8)):
        radius = size * rng.uniform(0.04, 0.1)
        distance = ((rows - row) ** 2 + (columns - column) ** 2) / radius**2
        added = np.maximum(added, rng.uniform(300, 600) * np.exp(-distance / 2))
    return added


def _write_organs(folder: Path, patients: int, size: int, seed: int) -> None:
    del size  # MedMNIST's is fixed
    arrays: dict[str, list[tuple[Pixels, int]]] = {split: [] for split in _SPLITS}
    for number, split in enumerate(_splits(patients)):
        rng = np.random.default_rng(seed + number)
        scan = phantom_scan(seed + number, slices=_SLICES, size=2 * _ORGANS_SIZE)
        for label, region in enumerate(REGIONS):
            index = rng.choice([place for place, name in enumerate(scan.region) if name == region])
            top, left = rng.integers(_ORGANS_SIZE // 4, _ORGANS_SIZE * 3 // 4, 2)
            crop = scan.hu[index, top : top + _ORGANS_SIZE, left : left + _ORGANS_SIZE]
            arrays[split].append((window_uint8(np.ascontiguousarray(crop), WINDOWS["abdomen"]), label))
    content: dict[str, NDArray[np.uint8]] = {}
    for split, items in arrays.items():
        content[f"{split}_images"] = np.stack([picture for picture, _ in items])  # (N, 28, 28)
        content[f"{split}_labels"] = np.array([[label] for _, label in items], np.uint8)  # (N, 1)
    with (folder / "organsmnist.npz").open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **content)


def _write_brain(folder: Path, patients: int, size: int, seed: int) -> None:
    (folder / "head_ct").mkdir()
    rows = []
    for number in range(patients):
        ill = number % 2
        for index, picture in enumerate(_heads(seed + number, size, hemorrhage=bool(ill))):
            name = f"{PICTURES * number + index:03d}.png"
            Image.fromarray(picture).save(folder / "head_ct" / name)
            rows.append((f"head_ct/{name}", f"phantom_{seed + number}", ill))
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("id", "patient", "hemorrhage"), *rows])


def _heads(seed: int, size: int, *, hemorrhage: bool) -> list[Pixels]:
    """Slices of one head: skin, skull, brain, ventricles; calcifications in all, a hemorrhage in some."""
    rng = np.random.default_rng(seed)
    axis = _FIELD_MM * ((np.arange(size) + 0.5) / size - 0.5)
    x, y = axis[None, :] + rng.normal(0, 5), axis[:, None] + rng.normal(0, 5)
    tilt, edge = rng.normal(0, 0.1), _FIELD_MM / size
    x, y = np.cos(tilt) * x + np.sin(tilt) * y, np.cos(tilt) * y - np.sin(tilt) * x
    wide, long = rng.normal(66, 3), rng.normal(84, 4)
    bleeding = (*rng.uniform((-40, -50), (40, 50)), *rng.uniform(9, 20, 2))

    def paint(image: Hounsfield, place: tuple[float, float, float, float], hu: float) -> None:
        """Paint an ellipse, given by its middle and half axes in mm."""
        left, top, rx, ry = place
        depth = (1 - np.hypot((x - left) / rx, (y - top) / ry)) * min(rx, ry)
        image += np.clip(0.5 + depth / edge, 0, 1) * (hu - image)

    pictures = []
    for level in np.linspace(0.75, 1.0, PICTURES).tolist():  # towards the widest section
        image = np.full((size, size), -1000.0)
        for shell, hu in ((12.0, 20.0), (7.0, 1000.0), (0.0, 34.0)):
            paint(image, (0.0, 0.0, wide * level + shell, long * level + shell), hu)
        for side in (-1, 1):
            paint(image, (side * 11.0, -6.0 + rng.normal(0, 2), 7.0 * level, 24.0 * level), 6.0)
        for _ in range(2):
            paint(image, (*(rng.uniform(-35, 35, 2) * level), 2.5, 2.5), 120.0)
        if hemorrhage:
            paint(image, tuple(value * level for value in bleeding), rng.uniform(52, 66))
        image += rng.normal(0, 6, image.shape)
        pictures.append(window_uint8(image, WINDOWS["brain"]))
    return pictures


def _write_breakhis(folder: Path, patients: int, size: int, seed: int) -> None:
    for number, split in enumerate(_splits(patients)):
        rng = np.random.default_rng(seed + number)
        label = number % 2
        place = folder / ("test" if split == "test" else "train") / ("benign", "malignant")[label]
        place.mkdir(parents=True, exist_ok=True)
        for index in range(PICTURES):
            slide = f"14-{20_000 + number}{('', 'AB', 'CD')[number // 2 % 2 * index]}"
            magnification = (400, 400, 40)[index]
            picture = tissue(rng, size, nuclei=(5, 12)[label], radius=(1.4, 2.2)[label])
            name = f"SOB_{'BM'[label]}_{('A', 'DC')[label]}-{slide}-{magnification}-{index + 1:03d}.png"
            Image.fromarray(picture).save(place / name)


def _write_colorectal(folder: Path, patients: int, size: int, seed: int) -> None:
    for label, (name, (nuclei, radius, ground)) in enumerate(TISSUES.items()):
        (folder / name).mkdir()
        for number in range(patients):
            rng = np.random.default_rng((seed + number, label))
            picture = tissue(rng, size, nuclei=nuclei, radius=radius, ground=ground)
            tile = f"{0x1000 + 16 * number + label:X}_CRC-Prim-HE-{number + 1:02d}_{label:03d}.tif_Row_1_Col_151.tif"
            Image.fromarray(picture).save(folder / name / tile)


def _write_pneumonia(folder: Path, patients: int, size: int, seed: int) -> None:
    for number, split in enumerate(_splits(patients)):
        ill = number % 2
        place = folder / split / ("NORMAL", "PNEUMONIA")[ill]
        place.mkdir(parents=True, exist_ok=True)
        pictures = chest_xrays(np.random.default_rng(seed + number), size, PICTURES, pneumonia=bool(ill))
        kind = ("bacteria", "virus")[number // 2 % 2]
        for index, picture in enumerate(pictures):
            healthy = f"IM-{number + 1:04d}-{index + 1:04d}.jpeg"
            name = f"person{number + 1}_{kind}_{PICTURES * number + index + 1}.jpeg" if ill else healthy
            Image.fromarray(picture).save(place / name, quality=95)


def _splits(patients: int) -> list[str]:
    """The split of each patient; a patient's class is its number modulo 2."""
    order = [split for split, share in _SPLITS.items() for _ in range(share)]
    return [order[number // 2 * len(order) // math.ceil(patients / 2)] for number in range(patients)]


_WRITERS: Mapping[str, Callable[[Path, int, int, int], None]] = {
    "covid19": _write_covid,
    "organsmnist": _write_organs,
    "brain": _write_brain,
    "breakhis": _write_breakhis,
    "colorectal": _write_colorectal,
    "pneumonia": _write_pneumonia,
}
