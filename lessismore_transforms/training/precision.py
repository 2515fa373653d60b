"""The device of a network, and the precision of its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import nn

from lessismore_transforms.errors import UserError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The device of that name, by default the GPU of this process where there is one.

    Raises:
        UserError: the machine has no such device.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise UserError(f"expected a device that this machine has, found {name!r}; cpu is always there") from error
    return device


def place(
    network: nn.Module, device: str | torch.device, *, channels_last: bool = True, sync_batch_norm: bool = False
) -> nn.Module:
    """The network on a device, with the memory format that is asked for.

    Args:
        network: changed in place.
        device: such as cuda:1.
        channels_last: put convolutions into this memory format, which is often the fastest.
        sync_batch_norm: make batch norms use the statistics of all processes, which PyTorch can do on a GPU only.

    Raises:
        UserError: the machine has no such device.
    """
    device = pick_device(device)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    network = network.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    if sync_batch_norm and device.type == "cuda":
        from timm.layers import convert_sync_batchnorm  # takes a second to import

        network = convert_sync_batchnorm(network)
    return network


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """A tensor in float32; a float64 tensor stays as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class AutocastInferer(SimpleInferer):  # type: ignore[misc]
    """Run the network in float32 or under autocast, on any device; MONAI's own switch is for CUDA only.

    Args:
        device: device of the network.
        precision: fp32; bf16; fp16, on a GPU only, with gradients scaled by the trainer (give it
            `amp=inferer.scaled`); or auto: bf16 on a GPU that supports it, else fp32.

    Raises:
        UserError: the precision is unknown, or fp16 is asked for without a GPU.
    """

    def __init__(self, device: str | torch.device, precision: str = "auto") -> None:
        super().__init__()
        self.device_type = torch.device(device).type
        if precision not in PRECISIONS:
            raise UserError(f"expected a precision out of {', '.join(PRECISIONS)}, found {precision!r}")
        if precision == "fp16" and self.device_type != "cuda":
            raise UserError(f"expected a GPU for precision fp16, found the device {device}; take bf16 or fp32")
        if precision == "auto":  # older GPUs emulate bf16, slower than they compute in float32
            native = self.device_type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
            precision = "bf16" if native else "fp32"
        self.precision = precision
        self.dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]

    @property
    def scaled(self) -> bool:
        """Whether gradients have to be scaled to stay within the range of the numbers."""
        return self.dtype is torch.float16

    def __call__(self, inputs: Any, network: Any, *args: Any, **kwargs: Any) -> Any:
        """The output of the network for the inputs."""
        with torch.autocast(self.device_type, dtype=self.dtype, enabled=self.dtype is not None):
            return network(inputs, *args, **kwargs)


@contextmanager
def float32_only(device: str | torch.device) -> Iterator[None]:
    """Compute products and convolutions in float32, never in TF32 or bf16, whatever is set outside."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            torch.autocast(torch.device(device).type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
