"""The distances of an audit: of each slice to its second view, and to its neighbours, by three measures.

With x a slice, n another one, t1(x) and t2(x) its two views, t2(n) the second view of n (with parameters of its own),
g the place of t2(x) (crop, flips and rotation without the rest), and d a distance, three pairs are compared:

    whole    d(x, n)            and   d(x, t2(x))            n as it is
    aligned  d(g(x), g(n))      and   d(g(x), t2(x))         n as it is, at the place of the view
    loss     d(t1(x), t2(n))    and   d(t1(x), t2(x))        n as a negative, as the loss sees it

d is the bits of the difference hash, 1 - SSIM, or 1 - cosine of an encoder's features. SSIM compares pixels at one
place, so it is of `aligned` alone; features are of whole pictures and of views, `whole` and `loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lessismore_transforms.analysis.models import Model
from lessismore_transforms.audit.compared import Chunks, Variant
from lessismore_transforms.audit.settings import ALIGNED
from lessismore_transforms.errors import UserError, first_line
from lessismore_transforms.progress import progress_bar
from lessismore_transforms.training.loader import as_it_is, leave_signals_to_the_trainer

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WHOLE, ALIGNED_CROP, LOSS = "whole", "aligned", "loss"
HASH, SSIM = ALIGNED
_BATCH = 64  # views that go through a network at once


@dataclass(frozen=True, eq=False)
class Distances:
    """The distances of one comparison by one measure.

    Args:
        comparison: `whole`, `aligned` or `loss`.
        measure: `hash`, `ssim` or the name of an encoder.
        own: (n,), of each slice to its view.
        others: (n, K), to its neighbours; nan where there is none, or it was not measured.
    """

    comparison: str
    measure: str
    own: Floats
    others: Floats


def measure(
    chunks: Chunks, models: Sequence[Model], index: Ints, measured: Sequence[Ints], *, workers: int = 0
) -> tuple[list[list[Distances]], list[Tensor]]:
    """The distances under each variant, by each measure; and of each encoder the directions of all views.

    Directions are float32 (2 V + 1, n, F), of the slices, of their first views under each variant, of the second ones.

    Args:
        chunks: the pictures.
        models: encoders.
        index: (n, K), the neighbours of each slice, -1 for none.
        measured: for each variant, which neighbours (columns) are compared.
        workers: processes that make views.

    Raises:
        UserError: an encoder does not take pictures of this size, or gives features that are not finite.
    """
    n, variants = len(index), chunks.variants
    hashes = np.zeros((2 * len(variants) + 1, n), np.uint64)
    own = [np.full((2, n), np.nan) for _ in variants]
    others = [np.full((2, len(variant.pairs)), np.nan) for variant in variants]
    filled = [0] * len(variants)
    features: list[list[Tensor]] = [[] for _ in models]
    loader = DataLoader(
        chunks, batch_size=None, num_workers=workers, worker_init_fn=leave_signals_to_the_trainer, collate_fn=as_it_is
    )
    with progress_bar(total=n, desc="audit", unit=" slices") as bar:
        for number, chunk in enumerate(loader):
            rows = chunks.rows(number)
            hashes[:, rows.start : rows.stop] = chunk.hashes
            for place in range(len(variants)):
                own[place][:, rows.start : rows.stop] = chunk.own[place]
                begin, filled[place] = filled[place], filled[place] + chunk.others[place].shape[1]
                others[place][:, begin : filled[place]] = chunk.others[place]
            for model, found in zip(models, features, strict=True):
                found.append(_encoded(model, chunk.whole, chunk.first, chunk.second))
            bar.update(len(rows))
    of_models = [(model, torch.cat(found, dim=1)) for model, found in zip(models, features, strict=True)]
    results = []
    for place, (variant, columns) in enumerate(zip(variants, measured, strict=True)):
        chosen = np.full_like(index, -1)
        chosen[:, columns] = index[:, columns]
        views = (0, 1 + place, 1 + len(variants) + place)
        distances = _of_hashes(hashes[list(views)], chosen)
        distances += _of_crops(own[place], others[place], variant, chosen)
        for model, directions in of_models:
            distances += _of_features(model.name, directions[list(views)], chosen)
        results.append(distances)
    return results, [directions for _, directions in of_models]


def _encoded(model: Model, whole: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Directions of features, float32 (2 V + 1, B, F): of the slices, of their first and of their second views.

    Raises:
        UserError: the network does not take these pictures, or gives features that are not finite.
    """
    try:
        found = [
            model.features(pictures.flatten(0, -4), batch_size=_BATCH) for pictures in (whole[None], first, second)
        ]
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"expected {model.name} ({model.origin['backbone']}) to take views of {first.shape[-1]} pixels, found that "
            f"it does not ({first_line(error)}): give another --image_size"
        ) from error
    features = torch.cat(found)  # ((2 V + 1) B, F)
    if not features.isfinite().all():
        raise UserError(f"expected finite features, found others of {model.name}: give other weights")
    return torch.nn.functional.normalize(features, dim=1).view(-1, len(whole), features.shape[1])


def _of_hashes(hashes: NDArray[np.uint64], index: Ints) -> list[Distances]:
    """`whole` and `loss` by the hashes (3, n) of slices, first and second views."""
    whole, first, second = hashes
    found = []
    for comparison, anchor, others in ((WHOLE, whole, whole), (LOSS, first, second)):
        own = np.bitwise_count(anchor ^ second).astype(np.float64)
        bits = np.bitwise_count(anchor[:, None] ^ others[index]).astype(np.float64)
        found.append(Distances(comparison, HASH, own, np.where(index >= 0, bits, np.nan)))
    return found


def _of_crops(own: Floats, others: Floats, variant: Variant, index: Ints) -> list[Distances]:
    """`aligned`, from distances (2, n) to the view and (2, P) to the neighbours of the pairs."""
    n = len(index)
    known = variant.pairs[:, 0] * n + variant.pairs[:, 1]  # rising
    wanted = np.arange(n)[:, None] * n + index
    place = np.minimum(np.searchsorted(known, wanted), max(len(known) - 1, 0))
    return [
        Distances(
            ALIGNED_CROP,
            name,
            own[number],
            np.where(index >= 0, others[number][place], np.nan) if len(known) else np.full(index.shape, np.nan),
        )
        for number, name in enumerate(ALIGNED)
    ]


def _of_features(name: str, directions: Tensor, index: Ints) -> list[Distances]:
    """`whole` and `loss` by the directions (3, n, F) of slices, first and second views."""
    whole, first, second = directions
    found = []
    for comparison, anchor, others in ((WHOLE, whole, whole), (LOSS, first, second)):
        own = 1 - (anchor * second).sum(dim=1).double().numpy()
        far = np.full(index.shape, np.nan)
        for column in np.flatnonzero((index >= 0).any(axis=0)):
            there = np.flatnonzero(index[:, column] >= 0)
            rows = torch.from_numpy(index[there, column])
            far[there, column] = 1 - (anchor[torch.from_numpy(there)] * others[rows]).sum(dim=1).double().numpy()
        found.append(Distances(comparison, name, own, far))
    return found
