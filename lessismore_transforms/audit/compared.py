"""The pictures of an audit, a chunk of slices at a time: views in all variants, their hashes, and aligned crops.

A chunk's views hang on the seed and on its number alone, so that it does not matter which process makes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lessismore_transforms.audit.parts_of_views import GEOMETRY, only
from lessismore_transforms.pretraining.loader import SliceBatches
from lessismore_transforms.pretraining.views import Drawn, View, Views
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.reduction.hashing import dhash
from lessismore_transforms.reduction.ssim_kernels import sweep

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

CHUNK = 16  # slices


@dataclass(frozen=True)
class Variant:
    """Views with some of their parts.

    Args:
        parts: that are left in.
        pairs: (P, 2), slices whose aligned crops are compared; the first rising.
    """

    parts: tuple[str, ...]
    pairs: Ints


@dataclass(frozen=True, eq=False)
class Chunk:
    """What is found for B slices under V variants.

    Args:
        whole: float32 (B, 1, s, s), the slices as they are, in 0..1.
        first: float32 (V, B, 1, s, s), their first views.
        second: float32 (V, B, 1, s, s), their second views.
        hashes: uint64 (2 V + 1, B): of the slices, the first views, the second views.
        own: for each variant (2, B), distance of the slice at the place of its second view to that view, by hash in
            bits and as 1 - SSIM.
        others: for each variant (2, p), distance of that same crop to the crop of each neighbour at the same place, in
            the order of the pairs.
    """

    whole: Tensor
    first: Tensor
    second: Tensor
    hashes: NDArray[np.uint64]
    own: list[Floats]
    others: list[Floats]


class Chunks(Dataset[Chunk]):
    """Chunks of slices.

    Args:
        dataset: n slices.
        kinds: of the first and of the second view.
        variants: what is left in of them.
        seed: of the views.
    """

    def __init__(
        self, dataset: SliceSelectionDataset, kinds: tuple[View, View], variants: Sequence[Variant], *, seed: int
    ) -> None:
        self.dataset, self.variants = dataset, tuple(variants)
        self.views = Views(kinds, [0.0], [1.0], seed=seed)  # no normalisation: each network has its own
        self.second = Views(kinds[1:], [0.0], [1.0])

    def __len__(self) -> int:
        return -(-len(self.dataset) // CHUNK)

    def rows(self, number: int) -> range:
        """The slices of a chunk."""
        return range(number * CHUNK, min((number + 1) * CHUNK, len(self.dataset)))

    def __getitem__(self, number: int) -> Chunk:
        rows = self.rows(number)
        batch = self._batch(rows)
        drawn = self.views.draw(batch["size"], step=number)
        (whole,) = self.second.apply(batch["image"], [only(drawn[1], ())])
        first, second, own, others = [], [], [], []
        for variant in self.variants:
            one, two = self.views.apply(batch["image"], [only(each, variant.parts) for each in drawn])
            first.append(one)
            second.append(two)
            there = variant.pairs[np.isin(variant.pairs[:, 0], rows)]
            to_view, to_others = self._aligned(batch, drawn[1], variant.parts, there - np.array([rows.start, 0]), two)
            own.append(to_view)
            others.append(to_others)
        hashes = np.stack([dhash(_to_8_bit(pictures)) for pictures in (whole, *first, *second)])
        return Chunk(whole, torch.stack(first), torch.stack(second), hashes, own, others)

    def views_of(self, row: int) -> list[NDArray[np.uint8]]:
        """A slice as it is and its two views with all parts, uint8 (s, s)."""
        rows = self.rows(row // CHUNK)
        batch, place = self._batch(rows), row - rows.start
        drawn = self.views.draw(batch["size"], step=row // CHUNK)
        views = [*self.second.apply(batch["image"], [only(drawn[1], ())]), *self.views.apply(batch["image"], drawn)]
        return [_to_8_bit(each)[place] for each in views]

    def _batch(self, rows: Sequence[int]) -> dict[str, Any]:
        return SliceBatches(self.dataset).__getitems__((0, rows))

    def _aligned(
        self, batch: dict[str, Any], drawn: Drawn, parts: Sequence[str], pairs: Ints, views: Tensor
    ) -> tuple[Floats, Floats]:
        """Distances, (2, B) and (2, p), of each slice at the place of its view to the view and to other slices there.

        Args:
            batch: the slices.
            drawn: of their second views.
            parts: of the variant.
            pairs: (p, 2), place of the slice in the batch, and another slice of the data set.
            views: float32 (B, 1, s, s).
        """
        place = only(drawn, [part for part in parts if part in GEOMETRY])
        (here,) = self.second.apply(batch["image"], [place])
        stack, count = [_to_8_bit(here), _to_8_bit(views)], len(here)
        if len(pairs):
            used, which = np.unique(pairs[:, 1], return_inverse=True)
            neighbours = self._batch(used.tolist())
            there = _moved(_taken(place, pairs[:, 0]), neighbours["size"][which])
            stack.append(_to_8_bit(self.second.apply(neighbours["image"][which], [there])[0]))
        slices = np.concatenate(stack)
        later = np.arange(count, len(slices))
        earlier = np.concatenate([np.arange(count), pairs[:, 0]])
        hashes = dhash(slices)
        bits = np.bitwise_count(hashes[later] ^ hashes[earlier]).astype(np.float64)
        found = np.stack([bits, sweep(slices, (later, earlier))[0]])  # (2, B + p)
        return found[:, :count], found[:, count:]


def _taken(drawn: Drawn, rows: Ints) -> Drawn:
    """The parameters of some views."""
    named = {each.name: getattr(drawn, each.name) for each in dataclasses.fields(drawn)}
    taken: dict[str, Any] = {name: value[rows] for name, value in named.items() if isinstance(value, Tensor)}
    return dataclasses.replace(drawn, **taken)


def _moved(drawn: Drawn, sizes: Tensor) -> Drawn:
    """The same views of slices of other sizes (N, 2): a crop takes the same share of rows and columns."""
    if torch.equal(sizes, drawn.size):
        return drawn
    scale = (sizes / drawn.size).repeat(1, 2)
    box = (drawn.box * scale).floor().long()
    box[:, 2:] = torch.minimum(box[:, 2:].clamp(min=1), sizes - box[:, :2])
    return dataclasses.replace(drawn, box=box, size=sizes)


def _to_8_bit(pictures: Tensor) -> NDArray[np.uint8]:
    """Pictures (N, 1, s, s) in 0..1 as uint8 (N, s, s)."""
    rounded: NDArray[np.uint8] = pictures[:, 0].mul(255).round().to(torch.uint8).numpy()
    return np.ascontiguousarray(rounded)
