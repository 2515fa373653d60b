"""Reading, views and the SwAV step beside lightly's loop and torchvision's augmentations on CPU workers."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator

import torch
from bench_pretraining import Row, Run, reading, stepping, viewing

from gpu.pictures import dataset_dir, pngs
from gpu.setup import Figure, Setup
from lessismore_transforms.reduced.dataset import SliceSelectionDataset


def step(setup: Setup) -> Iterator[Figure]:
    """The whole SwAV step beside others (goal G3)."""
    yield from _figures(setup, stepping)


def views(setup: Setup) -> Iterator[Figure]:
    """Reading from the store, and eight views on one core."""
    for measurement in (reading, viewing):
        yield from _figures(setup, measurement)


def _figures(setup: Setup, measurement: Callable[[Run], Iterator[Row]]) -> Iterator[Figure]:
    sizes = setup.sizes
    options = argparse.Namespace(
        device=setup.device,
        backbone="timm:test_resnet" if sizes.tiny else "resnet50",
        batch_size=2 if sizes.tiny else 128,
        workers=0 if sizes.tiny else os.cpu_count(),
        profile=False,
    )
    dataset = SliceSelectionDataset(dataset_dir(setup))[: sizes.images]
    steps = 1 if sizes.tiny else 20
    run = Run(dataset, pngs(setup, dataset, len(dataset)), sizes.images, sizes.rounds, steps, options)
    for row in _on_one_thread(measurement, run):
        compared = f": {row.reference} : {row.ours}" if row.reference else ""
        yield Figure(f"{row.goal} {row.step}{compared}", _ratios(row), row.wanted, row.met, row.equal)


def _on_one_thread(measurement: Callable[[Run], Iterator[Row]], run: Run) -> list[Row]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return list(measurement(run))
    finally:
        torch.set_num_threads(before)


def _ratios(row: Row) -> str:
    if row.wall_ratio is None or row.cpu_ratio is None:
        return row.ours
    return f"{row.wall_ratio:.2f}x wall, {row.cpu_ratio:.2f}x CPU"
