"""The length of a training in batches, from epochs or steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lessismore_transforms.errors import UserError


@dataclass(frozen=True)
class Plan:
    """The length of a training.

    An iteration is one global batch, a step is one update of the weights: `accumulation` iterations.

    Args:
        batches_per_epoch: global batches of an epoch, a multiple of `accumulation`.
        iterations: global batches of the whole training.
        accumulation: batches whose gradients are added up for one step.
    """

    batches_per_epoch: int
    iterations: int
    accumulation: int = 1

    @classmethod
    def of(
        cls,
        slices: int,
        *,
        batch_size: int,
        max_epochs: int,
        max_steps: int | None = None,
        accumulation: int = 1,
        processes: int = 1,
        drop_last: bool = True,
    ) -> Plan:
        """Plan a training.

        Args:
            slices: in the data set.
            batch_size: of all processes together.
            max_epochs: number of times that every slice is seen.
            max_steps: number of updates, instead of epochs, so that sets of different sizes are compared at equal
                steps.
            accumulation: batches per step.
            processes: number of processes that share each batch.
            drop_last: leave out slices that do not fill a step; otherwise, without accumulation, they make a smaller
                batch if there are at least two slices and one for each process.

        Raises:
            UserError: a number is out of range, or the slices do not fill one step.
        """
        numbers = {"batch_size": batch_size, "max_epochs": max_epochs, "accumulation": accumulation}
        for name, value in (numbers if max_steps is None else numbers | {"max_steps": max_steps}).items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"expected {name} to be a whole number from 1, found {value!r}")
        if batch_size % processes:
            raise UserError(
                f"expected a batch_size that {processes} processes share evenly, found {batch_size}; it counts the "
                f"slices of all processes together, so take {batch_size // processes * processes or processes}"
            )
        batches = slices // batch_size // accumulation * accumulation
        if not drop_last and accumulation == 1 and slices - batches * batch_size >= max(2, processes):
            batches += 1
        if not batches:
            needed = batch_size * accumulation
            raise UserError(
                f"expected at least {needed} slices to fill batch_size {batch_size} x accumulation {accumulation}, "
                f"found {slices} in the selection; take a smaller batch_size or keep more slices"
            )
        return cls(batches, batches * max_epochs if max_steps is None else max_steps * accumulation, accumulation)

    @property
    def max_epochs(self) -> int:
        """Number of epochs that the training begins; the last one may stay unfinished."""
        return math.ceil(self.iterations / self.batches_per_epoch)

    @property
    def steps(self) -> int:
        """Number of updates of the weights in the whole training."""
        return self.iterations // self.accumulation
