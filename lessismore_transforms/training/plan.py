"""The length of a training in batches, from epochs or steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lessismore_transforms.errors import UserError
from lessismore_transforms.wording import counted


@dataclass(frozen=True)
class Plan:
    """The length of a training.

    An iteration is one global batch, a step is one update of the weights: `accumulation` iterations.

    Args:
        batches_per_epoch: global batches of an epoch, a multiple of `accumulation`.
        iterations: global batches of the whole training.
        accumulation: batches whose gradients are added up for one step.
        parts: number of equal parts of the training that count as its epochs wherever a setting is given in epochs;
            None where its length is given in epochs, which are then those of the set.
    """

    batches_per_epoch: int
    iterations: int
    accumulation: int = 1
    parts: int | None = None

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
                steps; settings in epochs then mean shares of the training, see `iterations_of`.
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
                f"expected at least {counted(needed, 'slice')} to fill batch_size {batch_size} x accumulation "
                f"{accumulation}, found {slices} in the selection; take a smaller batch_size or keep more slices"
            )
        if max_steps is None:
            return cls(batches, batches * max_epochs, accumulation)
        return cls(batches, max_steps * accumulation, accumulation, parts=max_epochs)

    @property
    def by_steps(self) -> bool:
        """Whether the length of the training is given in steps."""
        return self.parts is not None

    def iterations_of(self, epochs: int) -> int:
        """The iterations that a setting of so many epochs means, in whole steps.

        Where the length of the training is given in steps, an epoch is the `max_epochs`-th part of it, rounded down: 10
        of 800 epochs are 1.25 % of the steps, whatever the size of the set. A setting above 0 means at least one step,
        where the training has more than one.
        """
        if self.parts is None:
            return epochs * self.batches_per_epoch
        least = min(1, self.steps - 1) if epochs > 0 else 0
        return max(least, epochs * self.steps // self.parts) * self.accumulation

    def interval_of(self, epochs: int) -> int:
        """The iterations between what happens every so many epochs: at least one step."""
        return max(self.iterations_of(epochs), self.accumulation)

    @property
    def max_epochs(self) -> int:
        """Number of epochs that the training begins; the last one may stay unfinished."""
        return math.ceil(self.iterations / self.batches_per_epoch)

    @property
    def steps(self) -> int:
        """Number of updates of the weights in the whole training."""
        return self.iterations // self.accumulation
