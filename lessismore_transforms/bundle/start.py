"""How a training begins: its random numbers, and several processes that train one network."""

from __future__ import annotations

import os
import sys
from typing import Any

import ignite.distributed as idist
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lessismore_transforms.training.stopping import conclude


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


def leave_processes(trainer: Any) -> None:
    """Leave the processes of `torchrun`, and end this one where it is `python -m monai.bundle`.

    Once in a hundred runs a process whose work was done was seen to abort while Python took itself down ("terminate
    called without an active exception"), and `torchrun` then ends the others. So it ends without that.

    Args:
        trainer: of the training; where it stopped early, its sentence is printed.

    Raises:
        SystemExit: the training stopped early, in a process that runs something else.
    """
    idist.finalize()
    main = getattr(sys.modules["__main__"], "__spec__", None)
    if main is None or main.name != "monai.bundle.__main__":
        conclude(trainer)
        return
    code: Any = 0
    try:
        conclude(trainer)
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def distributed(
    network: nn.Module, device: str | torch.device, *, find_unused_parameters: bool = False
) -> DistributedDataParallel:
    """Network whose gradients all processes share.

    Buffers stay those of each process: queues are the same in all of them as they are, statistics of batch norms are
    those of the first process where the network is used, and sending either in each step would cost time.

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
        broadcast_buffers=False,
    )
