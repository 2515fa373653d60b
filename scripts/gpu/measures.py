"""Each measure on the device beside the CPU: equal results, the ratio, and what the paper's data sets would take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from bench_measures import HASHES, counts, pair_count, rank, same_kept
from bench_tools import Times, duration, measured

from gpu.pictures import volumes
from gpu.setup import Figure, Setup
from lessismore_transforms.reduction.embedding import cosine_matrix, embed
from lessismore_transforms.reduction.hashing import dhash, dhash_torch
from lessismore_transforms.reduction.mutual_information import nmi_matrix
from lessismore_transforms.reduction.selection import keep_count
from lessismore_transforms.reduction.ssim import ssim_matrix
from lessismore_transforms.weights.backbones import build_backbone, to_encoder

Pictures = npt.NDArray[np.uint8]
PAIRS = 1.65e8  # of slices within the volumes of PET-CT
BITS = 64


def ssim(setup: Setup) -> Iterator[Figure]:
    """SSIM of all pairs of each volume."""
    yield from _pairs(setup, "SSIM", ssim_matrix, error=2e-6, paper_h=421)  # each of both within 1e-6


def nmi(setup: Setup) -> Iterator[Figure]:
    """NMI of all pairs of each volume, 64 bins."""
    yield from _pairs(setup, "NMI", nmi_matrix, error=1e-12, paper_h=312)


def _pairs(setup: Setup, name: str, measure: Callable[..., Any], *, error: float, paper_h: float) -> Iterator[Figure]:
    """A measure of all pairs: some of the first volume on both, then all volumes on the device."""
    stacks = volumes(setup)
    part = stacks[0][: setup.sizes.compared]
    measure(part[:3]), measure(part[:3], device=setup.device)  # compile, and start the device
    expected, cpu = measured(lambda: measure(part))
    found = measure(part, device=setup.device)
    worst = float(np.abs(found - expected).max())
    yield Figure(f"{name}, largest difference from the CPU", f"{worst:.1e}", f"<= {error:g}", equal=worst <= error)
    same = same_kept(found, expected)
    yield Figure(f"{name}, the CPU's kept sets at 50, 20 and 10 %", "yes" if same else "no", "yes", equal=same)
    _, times = measured(lambda: [measure(stack, device=setup.device) for stack in stacks])
    count = sum(map(pair_count, stacks))
    pair, cpu_pair = times.wall / count, cpu.cpu / pair_count(part)
    yield Figure(f"{name} of a pair, {count:,} pairs", duration(pair))
    yield Figure(f"{name}, one core of the CPU : device", f"{cpu_pair / pair:.1f}x")
    hours = PAIRS * pair / 3600
    goal = {"wanted": "< 1 h", "met": hours < 1} if setup.on_gpu else {}
    said = f"{name} of PET-CT, {PAIRS:.3g} pairs x {duration(pair)} (the paper: {paper_h:g} h)"
    yield Figure(said, f"{hours:.2f} h", **goal)


def deepnet(setup: Setup) -> Iterator[Figure]:
    """Features of a ResNet50 with random weights, in float32 and bfloat16."""
    stacks = volumes(setup)
    name = "timm:test_resnet" if setup.sizes.tiny else "resnet50"
    size = 32 if setup.sizes.tiny else 224
    encoders = {where: to_encoder(build_backbone(name, weights="random")).to(where) for where in {"cpu", setup.device}}
    part = stacks[0][: setup.sizes.compared]
    plain, cpu = measured(lambda: embed(part, encoders["cpu"], size=size))
    features, rates = {}, {}
    for dtype in ("float32", "bfloat16"):

        def features_of(stack: Pictures, dtype: str = dtype) -> Any:
            return embed(stack, encoders[setup.device], size=size, device=setup.device, dtype=dtype)

        features[dtype] = features_of(part)
        _, times = measured(lambda of=features_of: [of(stack) for stack in stacks])
        rates[dtype] = sum(map(len, stacks)) / times.wall
    worst = float(np.abs(features["float32"] - plain).max() / np.abs(plain).max())
    said = "float32, largest difference from the CPU, of the largest"
    yield Figure(said, f"{worst:.1e}", "<= 1e-4", equal=worst <= 1e-4)
    kept = {dtype: _kept(found) for dtype, found in (("cpu", plain), *features.items())}
    for dtype in features:
        yield Figure(
            f"{dtype}, slices that the CPU in float32 keeps too, at 50, 20 and 10 %", _shared(kept[dtype], kept["cpu"])
        )
    yield Figure("float32, CPU : device", f"{rates['float32'] * cpu.wall / len(part):.1f}x")
    for dtype, rate in rates.items():
        minutes = HASHES / rate / 60
        goal = {"wanted": "< 2 min", "met": minutes < 2} if setup.on_gpu and dtype == "bfloat16" else {}
        yield Figure(f"{dtype}, slices per second, slices in the host's memory", f"{rate:.0f}")
        yield Figure(
            f"{dtype}, PET-CT: {HASHES:,} slices / {rate:.0f} per s (the paper: 6 h)", f"{minutes:.1f} min", **goal
        )


def _kept(features: npt.NDArray[np.float32]) -> list[set[int]]:
    matrix = cosine_matrix(features).astype(np.float64)
    return [set(np.flatnonzero(keep_count(rank(matrix), count)).tolist()) for count in counts(matrix)]


def _shared(ours: list[set[int]], theirs: list[set[int]]) -> str:
    return ", ".join(f"{len(one & other)} of {len(other)}" for one, other in zip(ours, theirs, strict=True))


def hashes(setup: Setup) -> Iterator[Figure]:
    """DHash of all slices."""
    stacks = volumes(setup)
    dhash(stacks[0][:1]), dhash_torch(torch.from_numpy(stacks[0][:1]).to(setup.device))
    expected, cpu = measured(lambda: np.concatenate([dhash(stack) for stack in stacks]))
    on_device = [torch.from_numpy(stack).to(setup.device) for stack in stacks]
    found, resident = measured(lambda: _hashed(on_device))
    _, copied = measured(lambda: _hashed([torch.from_numpy(stack).to(setup.device) for stack in stacks]))
    differing = int(np.bitwise_count(found ^ expected).sum())
    yield Figure(f"bits that differ from the CPU's, of {BITS * len(found):,}", str(differing), "0", equal=not differing)
    for name, times in (("on the device already", resident), ("in the host's memory", copied)):
        yield Figure(f"slices per second, {name}", f"{len(found) / times.wall:.0f}")
        yield Figure(f"one core of the CPU : device, {name}", f"{_ratio(cpu, times):.1f}x")


def _hashed(stacks: list[torch.Tensor]) -> npt.NDArray[np.uint64]:
    return torch.cat([dhash_torch(stack) for stack in stacks]).cpu().numpy().view(np.uint64)


def _ratio(cpu: Times, device: Times) -> float:
    return cpu.cpu / device.wall
