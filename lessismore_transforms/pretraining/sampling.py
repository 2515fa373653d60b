"""Which slices of a selection each epoch of a pre-training takes, as `sampling` says."""

from __future__ import annotations

import numpy as np

from lessismore_transforms.errors import UserError
from lessismore_transforms.pretraining.balance import Balanced
from lessismore_transforms.pretraining.rotation import Rotation
from lessismore_transforms.pretraining.settings import PretrainingSettings
from lessismore_transforms.pretraining.spreading import Spread, near_in_bits, near_in_mm
from lessismore_transforms.pretraining.training_set import TrainingSet, slices
from lessismore_transforms.reduced.dataset import SliceSelectionDataset
from lessismore_transforms.training.loader import Order, RandomOrder
from lessismore_transforms.wording import counted


def draws_per_epoch(settings: PretrainingSettings, dataset: TrainingSet) -> int:
    """Number of slices that an epoch takes: that of the clusters where they rotate.

    Raises:
        UserError: there is nothing to rotate.
    """
    if settings.sampling != "rotate":
        return len(dataset)
    if dataset.cluster_count == len(dataset):
        raise UserError(
            f"expected a selection that removed slices for the sampling rotate, found that {settings.selection!r} of "
            f"{settings.dataset_dir} removed none: name one with --selection, such as that of "
            "`select OUT --threshold 6 --name hash6`, or take the sampling random"
        )
    return dataset.cluster_count


def make_order(settings: PretrainingSettings, dataset: TrainingSet, batches_per_epoch: int) -> Order:
    """How the epochs of a training are drawn."""
    if settings.balance:
        volumes, clusters = slices(dataset)[1].numpy(), np.arange(len(dataset))
        if isinstance(dataset, SliceSelectionDataset):
            clusters = dataset.clusters
        return Balanced(volumes, clusters, settings.batch_size, settings.seed, settings.volumes_per_batch)
    if settings.sampling == "rotate" and isinstance(dataset, SliceSelectionDataset):
        return Rotation(dataset.clusters, settings.seed)
    if settings.sampling == "spread":
        pairs = _near_pairs(settings, dataset)
        return Spread(pairs, len(dataset), settings.batch_size, batches_per_epoch, settings.seed)
    return RandomOrder(len(dataset), settings.seed)


def _near_pairs(settings: PretrainingSettings, dataset: TrainingSet) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    hashes, volumes = (values.numpy() for values in slices(dataset))
    if settings.spread_bits is not None:
        return near_in_bits(volumes, hashes.view(np.uint64), settings.spread_bits)
    assert settings.spread_mm is not None
    if not isinstance(dataset, SliceSelectionDataset):
        raise UserError(
            f"expected an output of the reduction for spread_mm, found the pictures of {dataset.folder}, which have no "
            "places: give --spread_bits 6 instead"
        )
    return near_in_mm(volumes, dataset.positions_mm, settings.spread_mm)


def count_near_pairs(order: Spread) -> dict[str, int]:
    """The near pairs in the batches of the first epoch, and those that a random order would have there."""
    orders: dict[str, Order] = {"spread": order, "random": RandomOrder(order.draws, order.seed)}
    return {name: order.count_near(each.draw(0)) for name, each in orders.items()}


def near_pairs_line(settings: PretrainingSettings, near_pairs: dict[str, int]) -> str:
    """What `count_near_pairs` found, as a sentence."""
    within = f"{settings.spread_mm:g} mm" if settings.spread_bits is None else counted(settings.spread_bits, "bit")
    return (
        f"spread: slices of one volume within {within} share a batch {counted(near_pairs['spread'], 'time')} in the "
        f"first epoch, in a random order {counted(near_pairs['random'], 'time')}"
    )
