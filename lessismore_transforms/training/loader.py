"""The examples of each step of a training, and a loader of such batches, for one process or several.

The content of a batch depends on seed and step only: one process with a batch of 8 and two with 4 each see the same 8
examples in the same step, and a resumed run sees the same batches as an uninterrupted one.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset

from lessismore_transforms.errors import UserError
from lessismore_transforms.training.stopping import SIGNALS
from lessismore_transforms.wording import counted


class Order(Protocol):
    """Which slices each epoch takes, one after the other; the same in every process.

    Attributes:
        draws: number of slices that each epoch takes.
    """

    draws: int

    def draw(self, epoch: int) -> npt.NDArray[np.int64]:
        """The indices (draws,) of an epoch, counted from 0; none comes twice in a batch."""


class RandomOrder:
    """All slices in each epoch, in an order drawn from seed and epoch.

    Args:
        slices: number of slices in the data set.
        seed: of the orders.
    """

    def __init__(self, slices: int, seed: int = 0) -> None:
        self.draws, self.seed = slices, seed

    def draw(self, epoch: int) -> npt.NDArray[np.int64]:
        """The permutation (draws,) of an epoch."""
        return np.random.default_rng((self.seed, epoch)).permutation(self.draws)


class StepSampler:
    """The indices of the slices that this process takes in each step.

    Each epoch is drawn from seed and epoch, by default as a permutation of the slices, and cut into global batches; the
    slices left at its end are not seen in that epoch, or make a smaller batch. A process takes its contiguous share of
    a batch. All epochs are one stream.

    Args:
        slices: number of slices that an epoch takes.
        batch_size: of all processes together.
        iterations: number of the last step of the training.
        batches_per_epoch: steps after which the next epoch is drawn.
        seed: of the permutations.
        rank: of this process.
        processes: number of processes in the training.
        drop_last: leave out slices that do not fill a batch.
        order: how an epoch of so many slices is drawn, instead of the random permutation.

    Attributes:
        start: number of steps that are already done; a resumed run sets it.

    Raises:
        UserError: there are fewer slices than a batch or an epoch needs, or the processes cannot share a batch.
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
        drop_last: bool = True,
        order: Order | None = None,
    ) -> None:
        if batch_size < 1 or batch_size % processes:
            raise UserError(
                f"expected a batch_size that {processes} processes can share evenly, found {batch_size}: make it a "
                f"multiple of {processes}"
            )
        if seed < 0:
            raise UserError(f"expected a seed of 0 or more, found {seed}; give another")
        if slices < batch_size and drop_last:
            raise UserError(
                f"expected at least as many slices as a batch holds, found {counted(slices, 'slice')} for a "
                f"batch_size of {batch_size}: make the batch smaller or select more slices"
            )
        most = slices // batch_size if drop_last else -(-slices // batch_size)
        if not 1 <= batches_per_epoch <= most:
            raise UserError(
                f"expected 1 to {most} batches per epoch ({counted(slices, 'slice')} in batches of {batch_size}), "
                f"found {batches_per_epoch}: no slice comes twice in an epoch"
            )
        self.order: Order = RandomOrder(slices, seed) if order is None else order
        self.slices, self.batch_size, self.iterations = slices, batch_size, iterations
        self.batches_per_epoch, self.seed, self.start = batches_per_epoch, seed, 0
        self._rank, self._processes = rank, processes

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        """Yield each step from start + 1 on with the indices of its slices."""
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(self.start + 1, self.iterations + 1):
            if (step - 1) // self.batches_per_epoch != epoch:
                epoch = (step - 1) // self.batches_per_epoch
                order = self.order.draw(epoch)
            begin = (step - 1) % self.batches_per_epoch * self.batch_size
            batch = order[begin : begin + self.batch_size]
            share = (len(batch) * number // self._processes for number in (self._rank, self._rank + 1))
            yield step, batch[slice(*share)].tolist()

    def __len__(self) -> int:
        """Batches per epoch."""
        return self.batches_per_epoch


class StepLoader(DataLoader[dict[str, Any]]):
    """The batches of a sampler as a torch DataLoader; one pass over it is the rest of the training.

    Args:
        batches: a data set whose `__getitems__` takes an item of the sampler and returns a finished batch, so that
            workers hand over whole batches.
        sampler: of steps and indices.
        workers: processes that read ahead; 0 reads in this one.
        pin_memory: for copies to a GPU that do not wait.

    Attributes:
        sampler_of_steps: the sampler; a resumed run tells it where to start.

    Raises:
        UserError: the number of workers is negative.
    """

    def __init__(
        self, batches: Dataset[Any], sampler: StepSampler, *, workers: int = 0, pin_memory: bool = False
    ) -> None:
        if workers < 0:
            raise UserError(f"expected 0 or more workers, found {workers}; 0 reads in the main process")
        super().__init__(
            batches,
            batch_sampler=sampler,  # type: ignore[arg-type]
            collate_fn=as_it_is,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=leave_signals_to_the_trainer,
        )
        self.sampler_of_steps = sampler


def leave_signals_to_the_trainer(worker: int) -> None:
    """Keep a worker alive when the whole job is asked to end, until the trainer has saved its state."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def as_it_is(batch: Any) -> Any:
    """A batch that is whole already, for a loader that would collate it."""
    return batch
