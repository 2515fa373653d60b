"""Where the time of a training's steps goes, measured on the device and without waiting for it."""

from __future__ import annotations

import time
from typing import Any

import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents

LOADER, VIEWS, NETWORK, LOSS, BACKWARD, UPDATE, HANDLERS = PARTS = (
    "loader",
    "views",
    "network",
    "loss",
    "backward",
    "update",
    "handlers",
)


class Shares:
    """Marks along the steps of a trainer; what lies between two marks belongs to the first one's part.

    On a GPU a mark is an event of the stream: the part `loader` is the time for which the device has nothing to do
    before the next batch is there, `views` has the batch's copy to the device in it.

    Args:
        device: of the training.
        warm_up: steps at the beginning that do not count.
    """

    def __init__(self, device: str, warm_up: int) -> None:
        self.device, self.warm_up = torch.device(device), warm_up
        self._marks: list[tuple[str, Any]] = []

    def attach(self, trainer: Any) -> None:
        """Follow a trainer of MONAI, behind all of its handlers."""
        for event, part in (
            (Events.GET_BATCH_STARTED, LOADER),
            (IterationEvents.FORWARD_COMPLETED, LOSS),
            (IterationEvents.LOSS_COMPLETED, BACKWARD),
            (IterationEvents.BACKWARD_COMPLETED, UPDATE),
            (IterationEvents.MODEL_COMPLETED, HANDLERS),
        ):
            trainer.add_event_handler(event, self.mark, part)
        prepare = trainer.prepare_batch

        def prepared(*arguments: Any, **named: Any) -> Any:
            self.mark(VIEWS)
            batch = prepare(*arguments, **named)
            self.mark(NETWORK)
            return batch

        trainer.prepare_batch = prepared

    def mark(self, part: str) -> None:
        """From here on time belongs to this part."""
        moment: Any = time.perf_counter()
        if self.device.type == "cuda":
            moment = torch.cuda.Event(enable_timing=True)
            moment.record()
        self._marks.append((part, moment))

    def seconds(self) -> dict[str, float]:
        """The seconds of each part, for one step."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        begins = [number for number, (part, _) in enumerate(self._marks) if part == VIEWS]
        steps = len(begins) - 1 - self.warm_up  # from views to views; the last one has no end
        total = dict.fromkeys(PARTS, 0.0)
        first, last = begins[self.warm_up], begins[-1]
        for (part, begin), (_, end) in zip(self._marks[first:last], self._marks[first + 1 : last + 1], strict=True):
            total[part] += begin.elapsed_time(end) / 1000 if self.device.type == "cuda" else end - begin
        return {part: seconds / steps for part, seconds in total.items()}
