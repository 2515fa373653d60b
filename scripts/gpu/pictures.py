"""The pictures that the steps work on: a reduction of phantoms, made once, or the real slices that were given."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from gpu.setup import Setup, Sizes
from lessismore_transforms.phantom import phantom_scan, write_nifti
from lessismore_transforms.pipeline.run import reduce_dataset
from lessismore_transforms.pipeline.settings import Settings
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduced.table_files import parse_slice_id
from lessismore_transforms.reduction.target import Target


def dataset_dir(setup: Setup) -> Path:
    """An output folder of `reduce`: the one that was given, or all slices of phantoms."""
    if setup.slices is not None:
        return setup.slices
    out = setup.work / "phantoms"
    if not (out / "store" / "index.csv").is_file():  # written last
        reduce_dataset(phantom_volumes(setup), out, Settings(Target.of(method="all")), workers=0)
    return out


def phantom_volumes(setup: Setup) -> Path:
    """A folder of phantoms, written once."""
    folder, done = setup.work / "volumes", setup.work / "volumes_written"
    if not done.is_file():
        _write_phantoms(folder, setup.sizes)
        done.touch()
    return folder


def _write_phantoms(folder: Path, sizes: Sizes) -> None:
    jobs = [(folder / f"phantom_{seed}.nii.gz", seed, sizes) for seed in range(sizes.volumes)]
    if sizes.tiny:
        for job in jobs:
            _write_phantom(*job)
        return
    workers = min(len(jobs), len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(_write_phantom, *job) for job in jobs]:
            future.result()


def _write_phantom(path: Path, seed: int, sizes: Sizes) -> None:
    write_nifti(phantom_scan(seed, slices=sizes.slices, size=sizes.size), path)


def volumes(setup: Setup) -> list[npt.NDArray[np.uint8]]:
    """The pictures of each volume, uint8 (S, H, W), the longest volume first."""
    dataset = SliceSelectionDataset(dataset_dir(setup))
    rows: dict[str, list[int]] = {}
    for index, name in enumerate(dataset.slice_ids):
        rows.setdefault(parse_slice_id(name)[0], []).append(index)
    stacks = [np.stack([dataset.picture(index) for index in indices]) for indices in rows.values()]
    return sorted(stacks, key=len, reverse=True)


def pngs(setup: Setup, dataset: SliceSelectionDataset, count: int) -> list[Path]:
    """The first slices of a data set as PNG files."""
    folder = setup.work / "png"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:06d}.png" for index in range(count)]
    for index, path in enumerate(paths):
        if not path.is_file():
            Image.fromarray(dataset.picture(index)).save(path, compress_level=1)
    return paths
