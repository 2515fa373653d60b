from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from lessismore_transforms.bundle.start import distributed


def test_buffers_are_not_sent_between_processes(tmp_path: Path) -> None:
    """Queues are equal in all processes as they are; sending them in each step would cost time."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        network = distributed(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)), "cpu")
        assert network.broadcast_buffers is False
        assert network.device_ids is None
    finally:
        torch.distributed.destroy_process_group()
