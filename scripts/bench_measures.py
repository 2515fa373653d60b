"""P4 to P9: measures and rules on arrays in memory, beside other packages or a plain loop for the same result.

Steps on one thread are judged by CPU time, which is what "per core" means and what other programs hardly change.
"""

from __future__ import annotations

import itertools
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from bench_tools import (
    QUICK,
    Bench,
    Pictures,
    Row,
    Times,
    comparison,
    for_slices,
    measured,
    median_s,
    nifti_slices,
    pictures_of,
    say,
    stopwatch,
)

from lessismore_transforms.reduction.selection import Ranking, keep_count, removal_order, target_count

Scores = npt.NDArray[np.float64]

ROUNDS = 3
FRACTIONS = (0.5, 0.2, 0.1)  # of the kept sets that are compared
HASHES, VOLUMES = 541_439, 1_014  # slices and volumes of PET-CT


def hashes(bench: Bench) -> Iterator[Row]:
    """P4: the hash of arrays in memory, one thread."""
    import imagehash
    import torch
    from PIL import Image

    from lessismore_transforms.reduction.hashing import dhash, dhash_torch
    from lessismore_transforms.reduction.intensity import min_max_uint8

    def by_imagehash(stack: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
        return np.array([int(str(imagehash.dhash(Image.fromarray(image))), 16) for image in stack], np.uint64)

    def by_torch(stack: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
        return dhash_torch(torch.from_numpy(stack)).numpy().view(np.uint64)

    torch.set_num_threads(1)
    routes = {"imagehash": by_imagehash, "compiled": dhash, "torch": by_torch}
    times: dict[str, list[Times]] = {name: [] for name in routes}
    stack = min_max_uint8(np.concatenate([nifti_slices(path) for path in bench.volumes]))
    for number in range(6):
        for name, route in routes.items():
            _, taken = measured(lambda route=route: route(stack))
            if number:  # the first call warms up
                times[name].append(taken)
    differing = {"compiled": 0, "torch": 0}
    checked = 0
    for pictures in cuts(bench):
        expected = by_imagehash(pictures)
        for name in differing:
            differing[name] += int(np.bitwise_count(routes[name](pictures) ^ expected).sum())
        checked += len(pictures)
        if checked % 2000 < len(pictures):
            say(f"P4: {checked} slices compared")
    for name, wanted in (("compiled", 5), ("torch", 8)):
        step = f"dHash of an array, {name}, 1 thread ({differing[name]} differing bits in {checked} cuts)"
        yield comparison(
            "P4",
            step,
            times["imagehash"],
            times[name],
            wanted=wanted,
            equal=not differing[name],
            show=for_slices(len(stack)),
        )


def cuts(bench: Bench) -> Iterator[npt.NDArray[np.uint8]]:
    """Axial, coronal and sagittal pictures of every volume; in a full run also windowed and mirrored ones."""
    from lessismore_transforms.reduction.intensity import WINDOWS, min_max_uint8, window_uint8

    for path in bench.volumes:
        volume = nifti_slices(path)
        for axis in range(3):
            hu = np.ascontiguousarray(np.moveaxis(volume, axis, 0))
            if bench.sizes is QUICK:
                yield min_max_uint8(hu[::4])
                continue
            for pictures in (min_max_uint8(hu), window_uint8(hu, WINDOWS["lung"])):
                for mirrored in (pictures, pictures[:, :, ::-1], pictures[:, ::-1], pictures[:, ::-1, ::-1]):
                    yield np.ascontiguousarray(mirrored)


def ssim(bench: Bench) -> Iterator[Row]:
    """P5: SSIM, compiled, lazily to a tenth, and by torch."""
    import torch
    from skimage.metrics import structural_similarity

    from lessismore_transforms.reduction.ssim import ssim_matrix, ssim_removal_order

    def reference(one: Pictures, other: Pictures) -> float:
        return structural_similarity(
            one, other, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
        )

    torch.set_num_threads(1)
    times: dict[str, list[Times]] = {name: [] for name in ("reference", "all", "lazy", "torch")}
    error = {"all": 0.0, "torch": 0.0}
    same = {"all": True, "lazy": True, "torch": True}
    for stack in stacks(bench):
        part = middle(stack, bench.sizes.oracle)
        some = middle(stack, 2 * bench.sizes.oracle)
        tenth = target_count(len(stack), 0.1)
        oracle = np.eye(len(part))
        ways: dict[str, Callable[[], Any]] = {
            "all": lambda stack=stack: ssim_matrix(stack),
            "lazy": lambda stack=stack, tenth=tenth: ssim_removal_order(stack, count=tenth),
            "torch": lambda some=some: ssim_matrix(some, device="cpu"),
        }
        pairs = {"all": pair_count(stack), "lazy": pair_count(stack), "torch": pair_count(some)}
        results = alternate("P5", ways, pairs, reference, part, oracle, times)
        for name in error:
            matrix = middle_block(results[name], len(part))
            error[name] = max(error[name], float(np.abs(matrix - oracle).max()))
            same[name] &= same_kept(matrix, oracle)
        same["lazy"] &= np.array_equal(results["lazy"].rank == 0, keep_count(rank(results["all"]), tenth)) and all(
            np.array_equal(ssim_removal_order(part, count=count).rank == 0, keep_count(rank(oracle), count))
            for count in counts(part)
        )
    bench.costs["ssim"], bench.costs["ssim lazily"] = (median_s(times[name]) for name in ("all", "lazy"))
    for name, step, wanted in (
        ("all", "SSIM of a pair, all pairs, 1 thread", 100),
        ("lazy", "SSIM of a pair, lazily to 10 %, 1 thread", 250),
        ("torch", "SSIM of a pair, all pairs, torch on 1 core", 15),
    ):
        exact = name == "lazy" or error[name] <= 1e-6
        title = f"{step} (error {error[name]:.0e})" if name in error else step
        yield comparison("P5", title, times["reference"], times[name], wanted=wanted, equal=bool(same[name] and exact))


def mutual_information(bench: Bench) -> Iterator[Row]:
    """P6: normalised mutual information, 64 and 256 bins."""
    from skimage.metrics import normalized_mutual_information

    from lessismore_transforms.reduction.mutual_information import nmi_matrix

    for bins in (64, 256):
        times: dict[str, list[Times]] = {"reference": [], "all": []}
        error, same = 0.0, True
        for stack in stacks(bench):
            part = middle(stack, bench.sizes.oracle)
            result = alternate(
                "P6",
                {"all": lambda stack=stack, bins=bins: nmi_matrix(stack, bins=bins)},
                {"all": pair_count(stack)},
                lambda one, other, bins=bins: normalized_mutual_information(one, other, bins=bins),
                part,
                np.empty((len(part), len(part))),  # its edges are not fixed: another number, timed and thrown away
                times,
            )["all"]
            oracle = np.full((len(part), len(part)), 2.0)
            for i, j in itertools.combinations(range(len(part)), 2):
                oracle[i, j] = oracle[j, i] = nmi_by_histogram(part[i], part[j], bins)
            matrix = middle_block(result, len(part))
            error = max(error, float(np.abs(matrix - oracle).max()))
            same &= same_kept(matrix, oracle)
        bench.costs[f"nmi {bins}"] = median_s(times["all"])
        step = f"NMI of a pair, all pairs, {bins} bins, 1 thread (error {error:.0e})"
        yield comparison("P6", step, times["reference"], times["all"], wanted=40, equal=same and error <= 1e-12)


def nmi_by_histogram(one: Pictures, other: Pictures, bins: int) -> float:
    """(H(X) + H(Y)) / H(X, Y) from the joint histogram over equal bins of 0..255, in float64."""
    joint = np.histogram2d(one.ravel(), other.ravel(), bins=bins, range=[[0, 256], [0, 256]])[0] / one.size

    def entropy(share: Scores) -> float:
        share = share[share > 0]
        return float(-(share * np.log(share)).sum())

    return (entropy(joint.sum(0)) + entropy(joint.sum(1))) / entropy(joint)


def exemplars(bench: Bench) -> Iterator[Row]:
    """P7: exemplars and neighbours among the hashes of a whole data set."""
    from released_way import exemplars as released_exemplars

    from lessismore_transforms.reduction.neighbours import exemplars_of_hashes, neighbours_within

    hashes = many_hashes(bench)
    bits = np.unpackbits(hashes.byteswap().view(np.uint8).reshape(-1, 8), axis=1).astype(bool)
    neighbours_within(hashes[:9], hashes[:10_000], 6)  # to compile the kernels, if they are not yet
    exemplars_of_hashes(hashes[:10_000], 6)
    few = 20_000
    equal = np.flatnonzero(exemplars_of_hashes(hashes[:few], 6).kept).tolist() == released_exemplars(bits[:few], 6)
    found, ours = zip(*(measured(lambda: exemplars_of_hashes(hashes, 6)) for _ in range(ROUNDS)), strict=True)
    kept = np.flatnonzero(found[0].kept)
    say(f"P7: the reference loop, {bench.sizes.loop_s:g} s of it")
    first, compared, taken = released_prefix(bits, 6, bench.sizes.loop_s)
    equal &= kept[: len(first)].tolist() == first
    # The loop compares each hash with all exemplars up to the one that removes it.
    all_compared = int((np.searchsorted(kept, found[0].kept_by) + 1).sum())
    loop, seconds = taken / (compared / all_compared), median_s(ours)
    yield Row(
        "P7",
        f"exemplars of {len(hashes):,} hashes ({len(kept):,} kept), 1 thread",
        f"{loop.cpu:.0f} s, extrapolated from its first {len(first)} exemplars",
        f"{seconds:.3f} s",
        loop.wall / median_s(ours, "wall"),
        loop.cpu / seconds,
        "< 5 s",
        seconds < 5,
        equal,
    )
    some = hashes[:: len(hashes) // 4000]
    near, near_times = measured(lambda: neighbours_within(some, hashes, 6))
    plain, plain_times = measured(lambda: neighbours_plain(some, hashes, 6))
    equal = all(np.array_equal(a, b) for a, b in zip(near, plain, strict=True))
    step = f"neighbours within 6 bits of {len(some):,} hashes among {len(hashes):,} (NumPy), 1 thread"
    yield comparison("P7", step, [plain_times], [near_times], equal=equal, show=for_slices(len(some)))


def many_hashes(bench: Bench) -> npt.NDArray[np.uint64]:
    """As many hashes as PET-CT has slices: those of the volumes, stretched, with noise by volume and slice."""
    from lessismore_transforms.reduction.hashing import dhash

    rng = np.random.default_rng(0)
    known = [dhash(pictures_of(path)) for path in bench.volumes]

    def flips(shape: tuple[int, ...], share: float) -> npt.NDArray[np.uint64]:
        return np.packbits(rng.random((*shape, 64)) < share, axis=-1).view(np.uint64)[..., 0]

    lengths = np.diff(np.linspace(0, HASHES, VOLUMES + 1).astype(int))
    volumes = [
        known[number % len(known)][np.linspace(0, len(known[number % len(known)]) - 1, length).astype(int)]
        ^ flips((), 0.15)
        for number, length in enumerate(lengths)
    ]
    return np.concatenate(volumes) ^ flips((HASHES,), 0.02)


def released_prefix(bits: npt.NDArray[np.bool_], threshold: int, seconds: float) -> tuple[list[int], int, Times]:
    """Run the loop of `released_way.exemplars` for so many seconds; returns exemplars, comparisons made and times."""
    remaining, kept, compared = np.arange(len(bits)), [], 0
    stop, begin = stopwatch(), time.process_time()
    while time.process_time() - begin < seconds and len(remaining):
        kept.append(int(remaining[0]))
        compared += len(remaining)
        distances = np.count_nonzero(bits[remaining] != bits[remaining[0]], axis=1)
        remaining = remaining[distances > threshold]
    return kept, compared, stop()


def neighbours_plain(
    hashes: npt.NDArray[np.uint64], others: npt.NDArray[np.uint64], radius: int
) -> tuple[npt.NDArray[Any], ...]:
    """The result of `neighbours_within`, from all distances."""
    rows, columns, distances = [], [], []
    for row, value in enumerate(hashes):
        distance = np.bitwise_count(others ^ value)
        near = np.flatnonzero(distance <= radius)
        rows.append(np.full(len(near), row))
        columns.append(near)
        distances.append(distance[near])
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(distances)


def pair_rule(bench: Bench) -> Iterator[Row]:
    """P8: the pair rule for 2000 slices, against sorting all pairs."""
    n = 2000
    walk = np.cumsum(np.random.default_rng(0).normal(size=(n, 32)), axis=0)
    directions = walk / np.linalg.norm(walk, axis=1, keepdims=True)
    matrix = directions @ directions.T  # neighbours are alike, as in a volume
    removal_order(matrix[:3, :3].copy(), similarity=True)
    expected, ranking, reference, ours = None, None, [], []
    for number in range(bench.sizes.rounds):
        say(f"P8: round {number + 1} of {bench.sizes.rounds}")
        expected, taken = measured(lambda: sorted_pairs(matrix))
        reference.append(taken)
        ranking, taken = measured(lambda: removal_order(matrix, similarity=True))
        ours.append(taken)
    equal = ranking is not None and np.array_equal(ranking.rank, expected)
    step = f"pair rule, {n} slices, against sorting tuples, 1 thread"
    yield comparison("P8", step, reference, ours, wanted=12, equal=equal)
    block = np.ascontiguousarray(matrix[: bench.sizes.tuples, : bench.sizes.tuples])
    before, after = peak_of(lambda: sorted_pairs(block)), peak_of(lambda: removal_order(block, similarity=True))
    ratio = before / after
    step = f"pair rule, {len(block)} slices, memory beside the matrix"
    ours_mib = f"{after:.2f} MiB, {ratio:.1f}x less"
    yield Row("P8", step, f"{before:.0f} MiB", ours_mib, wanted=">= 3x less", met=ratio >= 3, equal=equal)


def sorted_pairs(similarity: Scores) -> npt.NDArray[np.int64]:
    """The ranks (n,) by the pair rule as in the paper: sort all pairs, then drop the later slice of each."""
    pairs = sorted((-value, i, j) for j, row in enumerate(similarity.tolist()) for i, value in enumerate(row[:j]))
    rank = np.zeros(len(similarity), np.int64)
    left = len(similarity)
    for _, i, j in pairs:
        if not rank[i] and not rank[j]:
            rank[j] = left
            left -= 1
    rank[rank == 0] = left
    return rank


def peak_of(call: Callable[[], Any]) -> float:
    """The largest memory of a call in MiB, by tracemalloc."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def embedding(bench: Bench) -> Iterator[Row]:
    """P9: features of a ResNet50, in batches, against one image at a time."""
    import torch
    from torch.nn import functional as F

    from lessismore_transforms.reduction.embedding import embed
    from lessismore_transforms.weights.backbones import build_backbone, to_encoder

    torch.set_num_threads(2)
    network = build_backbone(weights="random")
    encoder = to_encoder(network)
    pictures = np.concatenate([pictures_of(path) for path in bench.volumes])
    pictures = pictures[np.arange(bench.sizes.images) * 5 % len(pictures)]
    mean, std = torch.tensor((0.485, 0.456, 0.406))[:, None, None], torch.tensor((0.229, 0.224, 0.225))[:, None, None]

    def one_by_one() -> npt.NDArray[np.float32]:
        features = []
        with torch.inference_mode():
            for picture in pictures:
                grey = torch.from_numpy(picture)[None, None].float() / 255
                small = F.interpolate(grey, size=(224, 224), mode="bilinear", antialias=True)
                features.append(network((small.expand(-1, 3, -1, -1) - mean) / std)[0])
        return torch.stack(features).numpy()

    ways = {
        "reference": one_by_one,
        "float32": lambda: embed(pictures, encoder),
        "bfloat16": lambda: embed(pictures, encoder, dtype="bfloat16"),
    }
    times: dict[str, list[Times]] = {name: [] for name in ways}
    features = {}
    for number in range(ROUNDS + 1):  # the first warms up
        say(f"P9: round {number} of {ROUNDS}")
        for name, way in ways.items():
            features[name], taken = measured(way)
            if number:
                times[name].append(taken / len(pictures))
    plain = features["reference"]
    error = {name: float(np.abs(features[name] - plain).max() / np.abs(plain).max()) for name in features}
    step = f"ResNet50 (random weights) of a slice, float32, 2 threads (error {error['float32']:.0e} of the largest)"
    equal = error["float32"] <= 1e-5
    yield comparison("P9", step, times["reference"], times["float32"], wanted=1.1, equal=equal, judged_by="wall")
    cosines = (features["bfloat16"] * plain).sum(1) / np.prod(
        [np.linalg.norm(each, axis=1) for each in (features["bfloat16"], plain)], axis=0
    )
    step = f"the same, bfloat16 (cosine to float32 {cosines.min():.5f} or more)"
    yield comparison("P9", step, times["reference"], times["bfloat16"], wanted=2, judged_by="wall")


# Pairs of a volume.


def stacks(bench: Bench) -> list[Pictures]:
    """The volumes that P5 and P6 measure."""
    return sorted(map(pictures_of, bench.volumes), key=len)[: bench.sizes.volumes]


def alternate(
    goal: str,
    ways: dict[str, Callable[[], Any]],
    pairs: dict[str, int],
    reference: Callable[[Pictures, Pictures], float],
    part: Pictures,
    oracle: Scores,
    times: dict[str, list[Times]],
) -> dict[str, Any]:
    """Time ways to measure a volume and the reference in turn, and return the ways' results.

    Args:
        goal: for the line of progress.
        ways: functions by name; each is called once before, to warm up.
        pairs: number of pairs that each way measures.
        reference: measures a pair.
        part: pictures (n, H, W) of which all pairs are measured by the reference, a share of them in each round.
        oracle: (n, n); the reference's results are written into it.
        times: lists by the ways' names and "reference"; the times for one pair are added to them, round by round.
    """
    results = {name: call() for name, call in ways.items()}
    chosen = list(itertools.combinations(range(len(part)), 2))
    for number in range(ROUNDS):
        share = chosen[number::ROUNDS]
        say(f"{goal}: round {number + 1} of {ROUNDS}, {len(share)} pairs by the reference")
        values, taken = measured(lambda share=share: [reference(part[i], part[j]) for i, j in share])
        times["reference"].append(taken / len(share))
        for (i, j), value in zip(share, values, strict=True):
            oracle[i, j] = oracle[j, i] = value
        for name, call in ways.items():
            results[name], taken = measured(call)
            times[name].append(taken / pairs[name])
    return results


def pair_count(stack: Pictures) -> int:
    return len(stack) * (len(stack) - 1) // 2


def middle(stack: Pictures, count: int) -> Pictures:
    """`count` slices in a row from the middle, or all slices."""
    start = max(0, len(stack) - count) // 2
    return stack[start : start + count]


def middle_block(matrix: Scores, count: int) -> Scores:
    """The pairs of the slices that `middle` takes."""
    start = max(0, len(matrix) - count) // 2
    return np.ascontiguousarray(matrix[start : start + count, start : start + count])


def rank(matrix: Scores) -> Ranking:
    return removal_order(matrix, similarity=True)


def counts(stack: Pictures | Scores) -> list[int]:
    return [target_count(len(stack), fraction) for fraction in FRACTIONS]


def same_kept(matrix: Scores, oracle: Scores) -> bool:
    """Whether both keep the same slices at 50, 20 and 10 %."""
    ours, theirs = rank(matrix), rank(oracle)
    return all(np.array_equal(keep_count(ours, count), keep_count(theirs, count)) for count in counts(oracle))
