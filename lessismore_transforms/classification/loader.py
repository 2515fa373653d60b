"""Batches of labelled pictures, for training and for evaluation, and what is done with them on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from lessismore_transforms.classification.augment import Augment
from lessismore_transforms.classification.examples import Split
from lessismore_transforms.errors import UserError
from lessismore_transforms.training.loader import leave_signals_to_the_trainer
from lessismore_transforms.training.processes import process_count, process_rank
from lessismore_transforms.training.seeding import seed_for

_KEYS = ("image", "label", "index")


class ExampleBatches(Dataset[Any]):
    """A data set of finished batches.

    Args:
        split: its transform makes pictures of one size.
    """

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, batch: tuple[int, Sequence[int]]) -> dict[str, Any]:
        """`image` float32 (B, C, S, S), `label` and `index` int64 (B,), and `step` of a batch."""
        step, indices = batch
        return {**collate([self.split[index] for index in indices]), "step": step}


class EvaluationLoader(DataLoader[Any]):
    """This process's share of a split, in order.

    Args:
        dataset: of prepared pictures.
        batch_size: of this process.
        workers: processes that prepare ahead; 0 prepares in this one.
        pin_memory: for copies to a GPU that do not wait.
    """

    def __init__(self, dataset: Split, batch_size: int, *, workers: int = 0, pin_memory: bool = False) -> None:
        super().__init__(
            dataset,
            batch_size=batch_size,
            sampler=range(process_rank(), len(dataset), process_count()),
            collate_fn=collate,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=leave_signals_to_the_trainer,
        )


class PrepareExamples:
    """Move a batch to the device and mirror and change some of its pictures: the `prepare_batch` of a MONAI trainer.

    Which ones is a function of seed, process and step.

    Args:
        flip: probability that a picture is mirrored left and right; 0 for evaluation.
        seed: of the choice.
        transpose: whether rows and columns were exchanged, so that left and right are above and below.
        augment: what is changed besides.

    Raises:
        UserError: the probability is none.
    """

    def __init__(
        self, flip: float = 0.0, *, seed: int = 0, transpose: bool = False, augment: Augment | None = None
    ) -> None:
        if not isinstance(flip, (int, float)) or not 0 <= flip <= 1:
            raise UserError(f"expected flip to be a probability from 0 to 1, found {flip!r}; 0.5 is usual")
        self.flip, self.seed, self.dimension = flip, seed, -2 if transpose else -1
        self.augment = augment

    def __call__(
        self, batch: dict[str, Any], device: torch.device, non_blocking: bool = True, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The pictures (B, C, S, S) and their labels (B,), or (B, classes) where pictures are mixed."""
        image, label = (batch[name].to(device, non_blocking=non_blocking) for name in ("image", "label"))
        if self.flip:
            generator = torch.Generator().manual_seed(seed_for("flip", self.seed, process_rank(), batch["step"]))
            flipped = torch.rand(len(image), generator=generator) < self.flip  # (B,)
            flipped = flipped.to(device, non_blocking=non_blocking)[:, None, None, None]
            image = torch.where(flipped, image.flip(self.dimension), image)
        if self.augment is not None:
            return self.augment(image, label, step=batch["step"], rank=process_rank())
        return image, label


def collate(items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """The pictures, labels and indices of items as one batch."""
    batch: dict[str, torch.Tensor] = default_collate([{key: item[key] for key in _KEYS} for item in items])
    return batch
