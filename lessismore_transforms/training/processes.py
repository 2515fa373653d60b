"""Exchange between several training processes; in a single process each function returns its own argument.

All functions use the default group of torch.distributed, once that is initialised.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed as dist
from torch import nn


def process_count() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if _initialised() else 1


def process_rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if _initialised() else 0


def wait() -> None:
    """Wait until every process has come to this line."""
    if process_count() > 1:
        dist.barrier()


@torch.no_grad()
def all_gather(x: torch.Tensor) -> torch.Tensor:
    """The tensors of all processes in one, in the order of their ranks; no gradient flows through it.

    Args:
        x: (B, ...), of the same shape in every process.

    Returns:
        (world * B, ...), the same in every process.
    """
    if process_count() == 1:
        return x.detach()
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(process_count())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def all_gather_objects(item: Any) -> list[Any]:
    """The values of all processes, in the order of their ranks; any plain values."""
    if process_count() == 1:
        return [item]
    items: list[Any] = [None] * process_count()
    dist.all_gather_object(items, item)
    return items


@torch.no_grad()
def share_buffers(network: nn.Module) -> None:
    """Give every process the buffers of the first one: statistics of batch norms differ, as each saw other pictures."""
    if process_count() > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def all_reduce_sum(x: torch.Tensor) -> torch.Tensor:
    """The sum of the tensors of all processes, with gradients.

    The gradient is the sum of the gradients of all processes, as if their losses were terms of one sum. DDP then
    averages the gradients of the parameters, so that the mean of the losses of all processes is minimised.

    Args:
        x: of the same shape in every process.

    Returns:
        The sum, of the same shape, the same in every process.
    """
    return x if process_count() == 1 else _AllReduceSum.apply(x)


class _AllReduceSum(torch.autograd.Function):
    """Sum over processes, forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def all_gather_with_gradients(x: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """The tensors of all processes in one, in the order of their ranks, with gradients.

    A process gets back the gradients of the losses of all processes. DDP then averages the gradients of the parameters,
    so that the mean of the losses of all processes is minimised, be they shares of one loss or the same loss.

    Args:
        x: B entries along `dim`, of the same shape in every process.
        dim: along which the tensors are put together.

    Returns:
        world * B entries along `dim`, the same in every process.
    """
    if process_count() == 1:
        return x
    gathered: torch.Tensor = _AllGather.apply(x.movedim(dim, 0))
    return gathered.movedim(0, dim)


class _AllGather(torch.autograd.Function):
    """Gather forwards; backwards the sum of what all processes give, of which each takes its own part."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return all_gather(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        own: torch.Tensor = total.chunk(process_count())[process_rank()]
        return own


def own_rows(share: torch.Tensor) -> slice:
    """The place of this process's share (B, ...) among the gathered shares of all processes."""
    return slice(process_rank() * len(share), (process_rank() + 1) * len(share))


def _initialised() -> bool:
    return dist.is_available() and dist.is_initialized()
