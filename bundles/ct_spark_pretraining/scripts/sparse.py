"""Sparse convolution: a torchvision ResNet that sees kept cells only, with its own modules and their names.

After Tian et al. 2023, "Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked Modeling"
(arXiv 2301.03580), Section 3.1. Every layer is the usual dense one; the values that it spreads into masked cells are
then set to 0, so that the mask keeps its shape. After a convolution this is done by the batch norm: it gets the kept
positions only, as one long map, and all other positions become 0. So torch's own batch norm computes the statistics of
the kept positions, in float32 also under autocast.
"""

from __future__ import annotations

from typing import Any

import torch
from lessismore_transforms.training.processes import all_reduce_sum, process_count
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import stochastic_depth

STRIDE = 32  # pixels along a side of a cell, which is one position of the deepest features
SIDES = (16, 8, 4, 2, 1)  # positions along a side of a cell, from the first convolution's output to the deepest


class Mask:
    """The mask of kept cells of a batch, at every resolution.

    Args:
        kept: (B, 1, f_h, f_w) bool, True where a cell is kept; on the CPU, so that nothing waits for a GPU.
        device: device of the maps.
    """

    def __init__(self, kept: torch.Tensor, device: torch.device) -> None:
        rows, columns = kept.shape[2:]
        picture, i, j = kept[:, 0].nonzero().to(device, non_blocking=True).T  # (n,) each: the kept cells
        top = picture * rows + i  # (n,), in units of the height of a cell
        self.kept = kept.to(device, non_blocking=True)
        # A map (B, H, W, C) is a table whose rows are the stretches of positions that share a line and a cell.
        self._rows = {
            side: (((top * side)[:, None] + torch.arange(side, device=device)) * columns + j[:, None]).flatten()
            for side in SIDES
        }

    def at(self, x: torch.Tensor) -> torch.Tensor:
        """The mask at the resolution of a map (B, C, H, W), as (B, 1, H, W) bool."""
        side = self._side(x)
        return self.kept.repeat_interleave(side, 2).repeat_interleave(side, 3)

    def drop(self, x: torch.Tensor) -> torch.Tensor:
        """A map (B, C, H, W) with zeros at masked positions."""
        return x.masked_fill(~self.at(x), 0)

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """The kept positions of a map (B, C, H, W) as one of a single picture, (1, C, n, 1)."""
        side, channels = self._side(x), x.shape[1]
        table = x.permute(0, 2, 3, 1).reshape(-1, side * channels)  # no copy where x is in channels_last
        kept = _SelectRows.apply(table, self._rows[side])
        return kept.reshape(1, -1, 1, channels).permute(0, 3, 1, 2)

    def scatter(self, kept: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The inverse of `gather`: the map (B, C, H, W) of x, in channels_last, with zeros at masked positions."""
        (pictures, channels, height, width), side = x.shape, self._side(x)
        stretches = kept.permute(0, 2, 3, 1).reshape(-1, side * channels)
        table = kept.new_zeros(pictures * height * width // side, side * channels)
        table = table.index_copy(0, self._rows[side], stretches)
        return table.view(pictures, height, width, channels).permute(0, 3, 1, 2)

    def _side(self, x: torch.Tensor) -> int:
        return x.shape[3] // self.kept.shape[3]


def sparse_features(
    backbone: ResNet, images: torch.Tensor, mask: Mask, *, drop_path: float = 0.0
) -> list[torch.Tensor]:
    """The features of the kept cells by the four stages of a ResNet, deepest first.

    Args:
        backbone: a ResNet of torchvision; in training mode its batch norms follow the statistics of kept positions.
        images: (B, 3, H, W).
        mask: of the same images.
        drop_path: probability that an image skips the residual branch of the last block; it rises from 0 at the first.

    Returns:
        For a ResNet50 (B, 2048, H/32, W/32), (B, 1024, H/16, W/16), (B, 512, H/8, W/8) and (B, 256, H/4, W/4).
    """
    stages = (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)
    last = sum(map(len, stages)) - 1
    rates = iter([drop_path * block / last for block in range(last + 1)])
    x = backbone.relu(sparse_batch_norm(backbone.conv1(mask.drop(images)), backbone.bn1, mask))  # (B, 64, H/2, W/2)
    x = mask.drop(backbone.maxpool(x))  # (B, 64, H/4, W/4)
    features = []
    for stage in stages:
        for block in stage:
            x = _residual(block, x, mask, next(rates))
        features.append(x)
    return features[::-1]


def sparse_batch_norm(x: torch.Tensor, norm: nn.Module, mask: Mask) -> torch.Tensor:
    """Normalise the kept positions of a map (B, C, H, W) by their own statistics; masked ones become 0."""
    return mask.scatter(batch_norm(mask.gather(x), norm), x)


def batch_norm(x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    """Apply a batch norm to a map (B, C, H, W), in training with the statistics of all processes together.

    The means and variances of the processes are combined as those of groups of positions, without cancellation (Chan et
    al. 1983).
    """
    if process_count() == 1 or not norm.training:
        return norm(x)
    variance, mean = torch.var_mean(x.to(norm.weight.dtype), (0, 2, 3), correction=0)  # (C,) each
    own = torch.full_like(mean[:1], x.numel() // x.shape[1])
    total = all_reduce_sum(own)
    joint_mean = all_reduce_sum(mean * own) / total
    joint_variance = all_reduce_sum((variance + (mean - joint_mean).square()) * own) / total
    with torch.no_grad():
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(joint_mean, norm.momentum)
        norm.running_var.lerp_(joint_variance * total / (total - 1), norm.momentum)
    scale = norm.weight * (joint_variance + norm.eps).rsqrt()
    return ((x - joint_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]).to(x.dtype)


def _residual(block: BasicBlock | Bottleneck, x: torch.Tensor, mask: Mask, drop_path: float) -> torch.Tensor:
    """Apply a residual block to the kept cells."""
    y = block.relu(sparse_batch_norm(block.conv1(x), block.bn1, mask))
    y = sparse_batch_norm(block.conv2(y), block.bn2, mask)
    if isinstance(block, Bottleneck):
        y = sparse_batch_norm(block.conv3(block.relu(y)), block.bn3, mask)
    if block.downsample is not None:
        conv, norm = block.downsample
        x = sparse_batch_norm(conv(x), norm, mask)
    return block.relu(stochastic_depth(y, drop_path, "row", block.training) + x)


class _SelectRows(torch.autograd.Function):
    """Select rows of a table by their distinct numbers; faster than torch's own gradient, which adds row after row."""

    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = table.shape
        return table.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (rows,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.shape).index_copy_(0, rows, gradient), None
