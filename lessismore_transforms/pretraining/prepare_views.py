"""From a batch of the loader to what a method's network is called with."""

from __future__ import annotations

from typing import Any

import torch

from lessismore_transforms.pretraining.views import Views
from lessismore_transforms.training.processes import process_rank


class PrepareViews:
    """Make the views on the device: the `prepare_batch` of a MONAI trainer.

    The network is called as `network(views, index=index)`: a list of float32 (B, C, size, size), and the positions
    of the slices in the data set, int64 (B,).

    Args:
        views: what to make.
        smallest: rows and columns of the smallest slice to come.

    Raises:
        UserError: a view would enlarge that slice beyond sense.
    """

    def __init__(self, views: Views, smallest: tuple[int, int]) -> None:
        views.check(*smallest)
        self.views = views

    def __call__(
        self, batch: dict[str, Any], device: torch.device, non_blocking: bool = True, **_: Any
    ) -> tuple[list[torch.Tensor], None, tuple[()], dict[str, torch.Tensor]]:
        """The views, no label, and what else the network takes."""
        image, index = (batch[name].to(device, non_blocking=non_blocking) for name in ("image", "index"))
        # Sizes stay on the CPU, where parameters are drawn: asking the GPU for them would wait for it.
        return self.views(image, batch["size"], step=batch["step"], rank=process_rank()), None, (), {"index": index}
