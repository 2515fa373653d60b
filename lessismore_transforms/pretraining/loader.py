"""Batches of slices from the store, for one process or several, from any step of a training on.

What a batch holds is a function of seed and step: one process with a batch of 8 and two with 4 each see the same 8
slices in the same step, and a resumed run goes on with the very batches that it would have seen.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader

from lessismore_transforms.pretraining.stopping import SIGNALS


class Slices(Protocol):
    """Any data set of `{"image": uint8 (C, H, W), ...}`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class StepSampler:
    """Tell for each step which slices this process takes.

    Each epoch is a permutation of the slices drawn from seed and epoch, cut into global batches; what is left at its
    end is not seen in that epoch. A process takes its contiguous share of a batch. All epochs are one stream.

    Args:
        slices: in the data set.
        batch_size: of all processes together.
        iterations: the last step of the training.
        batches_per_epoch: steps after which a new permutation begins.
        seed: of the permutations.
        rank: of this process.
        processes: in the training.

    Attributes:
        start: steps that are already done; a resumed run sets it.

    Raises:
        ValueError: there are fewer slices than a batch or an epoch needs, or the processes cannot share a batch.
    """

    def __init__(
        self,
        slices: int,
        batch_size: int,
        iterations: int,
        *,
        batches_per_epoch: int,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        if batch_size < 1 or batch_size % processes:
            raise ValueError(
                f"expected a batch_size that {processes} processes can share evenly, found {batch_size}: make it a "
                f"multiple of {processes}"
            )
        if seed < 0:
            raise ValueError(f"expected a seed of 0 or more, found {seed}; give another")
        if slices < batch_size:
            raise ValueError(
                f"expected at least as many slices as a batch holds, found {slices} slices for a batch_size of "
                f"{batch_size}: make the batch smaller or select more slices"
            )
        if not 1 <= batches_per_epoch <= slices // batch_size:
            raise ValueError(
                f"expected 1 to {slices // batch_size} batches per epoch ({slices} slices in batches of {batch_size}), "
                f"found {batches_per_epoch}: no slice comes twice in an epoch"
            )
        self.slices, self.batch_size, self.iterations = slices, batch_size, iterations
        self.batches_per_epoch, self.seed, self.start = batches_per_epoch, seed, 0
        self._share = slice(rank * batch_size // processes, (rank + 1) * batch_size // processes)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        """Yield each step from start + 1 on with the indices of its slices."""
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(self.start + 1, self.iterations + 1):
            if (step - 1) // self.batches_per_epoch != epoch:
                epoch = (step - 1) // self.batches_per_epoch
                order = np.random.default_rng((self.seed, epoch)).permutation(self.slices)
            begin = (step - 1) % self.batches_per_epoch * self.batch_size
            yield step, order[begin : begin + self.batch_size][self._share].tolist()

    def __len__(self) -> int:
        """Batches per epoch."""
        return self.batches_per_epoch


class SliceBatches:
    """A data set of finished batches, so that loader workers hand over whole ones.

    Args:
        dataset: of single slices.
    """

    def __init__(self, dataset: Slices) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, batch: tuple[int, Sequence[int]]) -> dict[str, Any]:
        """Return `image` uint8 (B, C, H, W), `size` int64 (B, 2), `index` int64 (B,) and `step` of a batch.

        Slices of different sizes are padded with zeros at the right and the bottom to the largest of the batch.
        """
        step, indices = batch
        pictures = [np.asarray(self.dataset[index]["image"]) for index in indices]
        shapes = np.array([picture.shape for picture in pictures])  # (B, 3)
        images = np.zeros((len(pictures), *shapes.max(axis=0)), np.uint8)
        for image, picture in zip(images, pictures, strict=True):
            image[:, : picture.shape[1], : picture.shape[2]] = picture
        return {
            "image": torch.from_numpy(images),
            "size": torch.from_numpy(shapes[:, 1:].copy()),
            "index": torch.tensor(indices),
            "step": step,
        }


class SliceLoader(DataLoader[dict[str, Any]]):
    """The batches of a sampler as a torch DataLoader; one pass over it is the rest of the training.

    Args:
        dataset: of single slices.
        sampler: of steps and indices.
        workers: processes that read ahead; 0 reads in this one.
        pin_memory: for copies to a GPU that do not wait.

    Raises:
        ValueError: the number of workers is negative.
    """

    def __init__(self, dataset: Slices, sampler: StepSampler, *, workers: int = 0, pin_memory: bool = False) -> None:
        if workers < 0:
            raise ValueError(f"expected 0 or more workers, found {workers}; 0 reads in the main process")
        super().__init__(
            SliceBatches(dataset),  # type: ignore[arg-type]
            batch_sampler=sampler,  # type: ignore[arg-type]
            collate_fn=_as_it_is,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=_leave_signals_to_the_trainer,
        )


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Let a worker live on when the whole job is asked to end, until the trainer has saved its state."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    return batch
