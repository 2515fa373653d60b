"""MoCo v2: find the other view of a picture among the views of many other pictures.

After He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning" (arXiv 1911.05722), Section 3
and Algorithm 1, and Chen et al. 2020, "Improved Baselines with Momentum Contrastive Learning" (arXiv 2003.04297), which
adds the MLP head; with the settings of Wolf et al. 2024 (doi 10.1016/j.compbiomed.2024.109242), Appendix B. One view,
the query, goes through the encoder that learns; the other, the key, goes through a slow copy of it. The keys of past
batches stay in a queue and are the negatives. On a small set the queue may hold earlier keys of the same picture; these
are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from lessismore_transforms.errors import UserError
from lessismore_transforms.pretraining.heads import projection_head
from lessismore_transforms.pretraining.momentum import momentum_copy, update_copy
from lessismore_transforms.pretraining.near_copy_mask import NearCopyMask
from lessismore_transforms.training.precision import at_least_float32
from lessismore_transforms.training.processes import all_gather, own_rows, process_count
from lessismore_transforms.weights.backbones import three_channels
from lessismore_transforms.wording import counted
from torch import nn

LONGEST_QUEUE = 65_536  # keys, in the paper of MoCo
BATCHES_IN_QUEUE = 256  # as many as 65,536 keys are in the paper of MoCo
SMALLEST_GROUP = 8  # pictures: the statistics of fewer are noise


class MoCo(nn.Module):
    """Query encoder, key encoder and queue: two views to logits (Section 3).

    Args:
        backbone: maps pictures (N, 3, H, W) to features (N, F).
        features: F, 2048 for a ResNet50.
        queue_length: K, keys in the queue, a multiple of the batch of all processes; see `default_queue_length`.
        embedding: D, size of the embeddings.
        mlp: a head of two layers as in version 2, or of one as in version 1.
        temperature: softness of the comparison.
        key_groups: number of groups into which a single process splits its batch. Batch norms see each group alone, and
            keys are shuffled between the groups, as between that many processes. There are fewer groups where they
            would have less than 8 pictures.
        seed: of the random keys that fill the queue at first.
        near_copies: tells which slices are near copies of each other, whose keys are no negatives; None where all are.

    Raises:
        UserError: a setting is not positive.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        *,
        queue_length: int,
        embedding: int = 128,
        mlp: bool = True,
        temperature: float = 0.07,
        key_groups: int = 2,
        seed: int = 0,
        near_copies: NearCopyMask | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"queue_length": queue_length, "temperature": temperature, "key_groups": key_groups}.items():
            if not value > 0:
                raise UserError(f"expected {name} of MoCo above 0, found {value}; give a positive one")
        self.backbone = backbone
        self.head = (
            projection_head(features, features, embedding, norm=False) if mlp else nn.Linear(features, embedding)
        )
        self.key_encoder = momentum_copy(nn.Sequential(self.backbone, self.head))
        self.temperature, self.key_groups, self.near_copies = temperature, key_groups, near_copies
        noise = torch.randn(embedding, queue_length, generator=torch.Generator().manual_seed(seed))
        self.queue: torch.Tensor  # (D, K), the same in all processes, as are the next two
        self.queue_index: torch.Tensor  # (K,), number of each key's picture, -1 where that is not known
        self.queue_pointer: torch.Tensor  # (1,), position of the oldest key
        self.register_buffer("queue", F.normalize(noise, dim=0))
        self.register_buffer("queue_index", torch.full((queue_length,), -1))
        self.register_buffer("queue_pointer", torch.zeros(1, dtype=torch.int64))

    def update_keys(self, momentum: float = 0.999) -> None:
        """Move the key encoder towards the query encoder, before the forward pass of each step (Equation 2)."""
        update_copy(self.key_encoder, nn.Sequential(self.backbone, self.head), momentum)

    def forward(self, views: Sequence[torch.Tensor], index: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Compare queries with keys, then put the keys into the queue.

        Args:
            views: two (B, 1 or 3, H, W) of the same B pictures: queries and keys.
            index: (B,), the number of each picture in the data set; without it no key is left out.

        Returns:
            `logits` (B, 1 + K), the picture's own key first, -inf for keys that are left out; `embedding` (B, D), the
            queries, of length 1, without gradient.
        """
        query_view, key_view = views
        q = self._encode(self.backbone, self.head, query_view)  # (B, D)
        keys = self.encode_keys(key_view)  # (N, D)
        index = torch.full_like(q[:, 0], -1, dtype=torch.int64) if index is None else index
        return {"logits": self.compare(q, keys, index), "embedding": q.detach()}

    @torch.no_grad()
    def encode_keys(self, images: torch.Tensor) -> torch.Tensor:
        """Encode the key views of all processes, shuffled between the groups of the batch norms (Section 3.3).

        A batch norm adds to each picture a trace of the other pictures in its group. If these were the same for a query
        and its key, the network could recognise the key by this trace alone, without learning anything.

        Args:
            images: (B, 1 or 3, H, W), the share of this process.

        Returns:
            (N, D), of length 1, of the N pictures of all processes in the order of their ranks.
        """
        everyone = all_gather(images)  # (N, 1 or 3, H, W)
        order = all_gather(torch.randperm(len(everyone), device=images.device))[: len(everyone)]  # that of rank 0
        k = self._encode(self.key_encoder[0], self.key_encoder[1], everyone[order[own_rows(images)]])  # (B, D)
        return all_gather(k)[order.argsort()]

    def _encode(self, backbone: nn.Module, head: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, D) of length 1.

        With several processes each process is a group, and keys are shuffled between them. A single process splits its
        batch into g groups instead, with the same result as g processes. It splits the queries too: if only the keys
        were split, all pictures in the group of a key would also be in the group of its query. With both split and the
        keys shuffled, only one in g of them is.
        """
        groups = max(1, min(self.key_groups, len(images) // SMALLEST_GROUP)) if process_count() == 1 else 1
        embeddings = [head(backbone(three_channels(group))) for group in images.tensor_split(groups)]
        return F.normalize(at_least_float32(torch.cat(embeddings)), dim=1)

    def compare(self, q: torch.Tensor, keys: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Compare queries with their keys and with the queue, and then put the keys into the queue.

        Args:
            q: (B, D), queries of this process, of length 1.
            keys: (N, D), keys of all processes, of length 1, in the order of their ranks.
            index: (B,), numbers of the pictures of this process, -1 where that is not known.

        Returns:
            Logits (B, 1 + K).

        Raises:
            UserError: the queue does not hold whole batches.
        """
        own = (index[:, None] == self.queue_index) & (self.queue_index >= 0)  # (B, K)
        if self.near_copies is not None:
            own |= self.near_copies(index, self.queue_index)
        queue = self.queue.clone()  # gradients need the keys that are about to be replaced
        logits = moco_logits(q, keys[own_rows(q)], queue, own, self.temperature)
        if self.training:
            self._enqueue(keys, all_gather(index))
        return logits

    @torch.no_grad()
    def _enqueue(self, keys: torch.Tensor, index: torch.Tensor) -> None:
        """Replace the oldest keys by those of a batch (N, D), with their pictures' numbers (N,)."""
        length = len(self.queue_index)
        if length % len(keys):
            raise UserError(
                f"expected a queue_length that is a multiple of the {counted(len(keys), 'picture')} of a batch, "
                f"found {length}; take {max(1, length // len(keys)) * len(keys)}"
            )
        places = (self.queue_pointer + torch.arange(len(keys), device=keys.device)) % length  # (N,)
        self.queue.index_copy_(1, places, keys.T.to(self.queue.dtype))
        self.queue_index.index_copy_(0, places, index)
        self.queue_pointer.add_(len(keys)).remainder_(length)


def moco_logits(
    q: torch.Tensor, k: torch.Tensor, queue: torch.Tensor, own: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Similarities of queries to their own key and then to each key of the queue, over the temperature (Algorithm 1).

    Args:
        q: (B, D), of length 1, as all keys are.
        k: (B, D), the key of each query.
        queue: (D, K).
        own: (B, K) bool, True for an earlier key of the query's own picture, or of a near copy that is left out. It is
            no negative: its logit becomes -inf, so that it has no weight.
        temperature: divisor of the cosines.

    Returns:
        (B, 1 + K), in float32 also under autocast.
    """
    with torch.autocast(q.device.type, enabled=False):
        positive = (q * k).sum(dim=1, keepdim=True)  # (B, 1)
        negative = (q @ queue).masked_fill(own, -math.inf)  # (B, K)
        return torch.cat([positive, negative], dim=1) / temperature  # (B, 1 + K)


class InfoNCE(nn.Module):
    """Cross-entropy of finding the right key, the first one, among all keys (Equation 1).

    A network that cannot distinguish any pictures has the loss ln(1 + K), 11.09 with 65,536 keys.
    """

    def forward(self, prediction: Mapping[str, torch.Tensor], target: None = None) -> torch.Tensor:
        """The mean over pictures.

        Args:
            prediction: output of `MoCo`: `logits` (B, 1 + K).
            target: not used.
        """
        logits = at_least_float32(prediction["logits"])
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))


def chance_loss(queue_length: int) -> float:
    """Loss of a network that tells nothing apart: the right key is as likely as any in the queue, ln(1 + K)."""
    return math.log1p(queue_length)


def default_queue_length(slices: int, batch_size: int, max_steps: int | None = None) -> int:
    """The number of keys to keep: whole batches, at most 65,536, at most half of the data set, at least one batch.

    A queue of 65,536 keys would hold each of the 22,672 slices of LIDC after HASH-6 about three times: the negatives of
    a query would mostly be repetitions, and some of them would be its own picture.

    Where the length of the training is given in steps, sets of different sizes are compared, and the queue must not
    depend on the set: it holds the keys of 256 batches, at most 65,536. So its oldest key is as many steps old as in
    the paper of MoCo, with its batches of 256.

    Args:
        slices: number of slices in the data set.
        batch_size: of all processes together.
        max_steps: length of the training where it is given in steps.
    """
    most = slices // 2 if max_steps is None else BATCHES_IN_QUEUE * batch_size
    return max(1, min(LONGEST_QUEUE, most) // batch_size) * batch_size
