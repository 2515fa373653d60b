"""How a training begins: its random numbers, and several processes that train one network."""

from __future__ import annotations

import os

import ignite.distributed as idist
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def seed_all(seed: int) -> None:
    """Seed torch's global generators, and let cuDNN choose its fastest algorithms."""
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = True


def process_device() -> torch.device:
    """Device of this process of `torchrun`: its GPU, else the CPU."""
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")


def join_processes(device: str | torch.device, backend: str | None = None) -> None:
    """Join the processes of `torchrun`.

    Args:
        device: of this process.
        backend: by which they talk; None for NCCL where there are GPUs, else gloo.
    """
    idist.initialize(backend or ("nccl" if torch.cuda.is_available() else "gloo"))
    if torch.cuda.is_available():
        torch.cuda.set_device(device)


def leave_processes() -> None:
    """Leave the processes of `torchrun`."""
    idist.finalize()


def distributed(
    network: nn.Module, device: str | torch.device, *, find_unused_parameters: bool = False
) -> DistributedDataParallel:
    """Network whose gradients all processes share.

    Args:
        network: on the device already.
        device: of this process.
        find_unused_parameters: whether some weights may get no gradient, as those of a frozen encoder.
    """
    device = torch.device(device)
    return DistributedDataParallel(
        network,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=find_unused_parameters,
    )
