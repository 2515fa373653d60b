"""Time the similarity of all layers of two ResNet50 beside the two forward passes alone, and beside a plain way.

    python scripts/bench_analysis.py --quick                          # smaller pictures, about a minute on one core
    python scripts/bench_analysis.py --batches 16 32 64

A1 is the map beside the passes: a ratio of 0.7 says that they are 70 % of its time. A2 is the map beside one by the
formula, a pair of layers at a time, with the same passes. A3 is A1 for a part of the positions. All sides run in turn
(A B A B ...) on one thread; a ratio is the median of its rounds. Beside the ratio of wall time stands that of CPU time,
by which the goal is judged. Exit code 1 where results differ; times never fail.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from bench_tools import FULL, QUICK, Row, Times, comparison, conclude, describe, for_slices, measured, reported
from torch import Tensor, nn

from lessismore_transforms.analysis.cka import Floats, compare_networks
from lessismore_transforms.analysis.layers import layer_names, watching
from lessismore_transforms.weights.backbones import build_backbone

POSITIONS = 196  # of A3: those of a map of 14 x 14


def passes(networks: list[nn.Module], images: Tensor, batch: int) -> None:
    """The forward passes alone."""
    with torch.inference_mode():
        for part in images.split(batch):
            for network in networks:
                network(part.contiguous(memory_format=torch.channels_last))


def by_pairs(networks: list[nn.Module], images: Tensor, batch: int) -> Floats:
    """The map by Song's formula, a pair of layers at a time, from plain Gram matrices; without intervals."""
    names = [layer_names(network, images[:2]) for network in networks]
    cross = np.zeros((len(names[0]), len(names[1])))
    own = [np.zeros(len(each)) for each in names]
    for part in images.split(batch):
        grams: list[list[Tensor]] = []
        for network, layers in zip(networks, names, strict=True):
            grams.append([])
            with torch.inference_mode(), watching(network, layers, lambda _, x, kept=grams[-1]: kept.append(plain(x))):
                network(part.contiguous(memory_format=torch.channels_last))
        for i, k in enumerate(grams[0]):
            cross[i] += [hsic_1(k, m) for m in grams[1]]
        for sums, each in zip(own, grams, strict=True):
            sums += [hsic_1(k, k) for k in each]
    return cross / np.sqrt(own[0])[:, None] / np.sqrt(own[1])


def plain(output: Tensor) -> Tensor:
    """The Gram matrix of centred features, float64 (n, n), its diagonal 0."""
    x = output.flatten(1)
    x = x - x.mean(0)
    return (x @ x.T).double().fill_diagonal_(0)


def hsic_1(k: Tensor, m: Tensor) -> float:
    n = len(k)
    mixed = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k.sum(0) @ m.sum(0)) / (n - 2)
    return float(((k * m).sum() + mixed) / (n * (n - 3)))


def rows(networks: list[nn.Module], images: Tensor, batch: int, rounds: int) -> Iterator[Row]:
    """The rows of a batch size."""

    def ours(positions: int | None = None) -> Floats:
        return compare_networks(*networks, images.split(batch), positions=positions, progress=False).cka

    ways: dict[str, Callable[[], Floats | None]] = {
        "passes": lambda: passes(networks, images, batch),
        "ours": ours,
        "pairs": lambda: by_pairs(networks, images, batch),
        "part": lambda: ours(POSITIONS),
    }
    times: dict[str, list[Times]] = {name: [] for name in ways}
    maps = {}
    for number in range(rounds + 1):
        for name, way in ways.items():
            maps[name], taken = measured(way)
            if number:  # the first round warms up
                times[name].append(taken)
    equal = bool(np.allclose(maps["pairs"], maps["ours"], atol=1e-4))
    show, size = for_slices(len(images)), f"batches of {batch}"
    yield comparison("A1", f"map beside passes, {size}", times["passes"], times["ours"], wanted=0.5, show=show)
    yield comparison("A2", f"map beside pairs of layers, {size}", times["pairs"], times["ours"], equal=equal, show=show)
    step = f"map of {POSITIONS} positions beside passes, {size}"
    yield comparison("A3", step, times["passes"], times["part"], show=show)


def main() -> int:
    """Run what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0], allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="pictures of 96 x 96, one round: noisy")
    parser.add_argument("--pictures", type=int, default=32, metavar="N", help="number of pictures (default: 32)")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32], metavar="N", help="sizes of batches")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    networks = [
        build_backbone("resnet50", weights="random", seed=seed).to(memory_format=torch.channels_last) for seed in (0, 1)
    ]
    size = 96 if options.quick else 224
    images = torch.randn(options.pictures, 3, size, size, generator=torch.Generator().manual_seed(0))
    about = {"pictures": f"{len(images)} of {size} x {size}", **describe(QUICK if options.quick else FULL)}
    rounds = 1 if options.quick else 3
    found = reported(row for batch in options.batches for row in rows(networks, images, batch, rounds))
    about["peak memory"] = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"
    return conclude(found, about, options.json)


if __name__ == "__main__":
    sys.exit(main())
