"""SwAV: crops of a picture predict each other's cluster, and clusters are shared out evenly over a batch.

After Caron et al. 2020, "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments"
(arXiv 2006.09882), Section 3, with the settings of Wolf et al. 2024 (doi 10.1016/j.compbiomed.2024.109242),
Appendix A. (Its Eq. 7 repeats one of the two terms by mistake; here it is the symmetric form.) Every crop becomes a
point on the unit sphere and a score for each of K prototypes. Codes, which are the targets, come from the scores of the
large crops only (Section 3.1, online clustering); every other crop learns to predict them.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from lessismore_transforms.errors import UserError
from lessismore_transforms.options import is_number
from lessismore_transforms.pretraining.heads import projection_head
from lessismore_transforms.training.plan import Plan
from lessismore_transforms.training.precision import at_least_float32
from lessismore_transforms.training.processes import all_gather, process_rank
from lessismore_transforms.weights.backbones import three_channels
from monai.engines import IterationEvents
from torch import nn

UNITS = ("iterations", "epochs")


class SwAV(nn.Module):
    """Backbone, projection head and prototypes: crops to scores (Section 3.1).

    Args:
        backbone: maps pictures (N, 3, H, W) to features (N, F).
        features: F, 2048 for a ResNet50.
        hidden: width of the projection head.
        embedding: D, size of the embeddings.
        prototypes: K, the number of clusters.
        queue_length: number of embeddings of earlier batches, of all processes together, that help to assign a small
            batch (end of Section 3.1); 0 for none.
        assigning: A, the number of crops, the first ones, from which codes are made.

    Raises:
        UserError: there are less than two prototypes, or the queue length is negative.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        *,
        hidden: int = 2048,
        embedding: int = 128,
        prototypes: int = 500,
        queue_length: int = 0,
        assigning: int = 2,
    ) -> None:
        super().__init__()
        if prototypes < 2 or queue_length < 0:
            found = f"{prototypes} prototypes and a queue of {queue_length}"
            raise UserError(f"expected at least 2 prototypes and a queue of 0 or more, found {found}; give others")
        self.backbone = backbone
        self.projection_head = projection_head(features, hidden, embedding)
        self.prototypes = nn.Linear(embedding, prototypes, bias=False)
        self.assigning = assigning
        self.queue_started = True
        self._queue_is_full = False
        self.queue: torch.Tensor  # the newest embedding first, the same in all processes
        self.register_buffer("queue", torch.zeros(assigning, queue_length, embedding))

    def forward(self, views: Sequence[torch.Tensor], index: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Score every crop.

        Args:
            views: V crops (B, 1 or 3, H, W) of the same B pictures, first those from which codes are made; successive
                crops of the same size share a forward pass.
            index: not used: SwAV does not need to know the pictures.

        Returns:
            `scores` (V, B, K) from -1 to 1; `embedding` (B, D), that of the first crop, of length 1, without gradient;
            and `queue_scores` (A, L, K) where a queue is full.
        """
        self._normalise_prototypes()
        passes = (list(crops) for _, crops in itertools.groupby(views, key=lambda crop: crop.shape[-2:]))
        h = torch.cat([self.backbone(three_channels(torch.cat(crops))) for crops in passes])  # (V * B, F)
        z = F.normalize(at_least_float32(self.projection_head(h)), dim=1)  # (V * B, D)
        with torch.autocast(z.device.type, enabled=False):  # codes multiply a score's error by 1 / epsilon = 20
            scores = self.prototypes(z)  # (V * B, K)
            shape = len(views), len(views[0]), -1
            z = z.detach().view(shape)  # (V, B, D)
            prediction = {"scores": scores.view(shape), "embedding": z[0]}
            if self.queue_started and self.queue.shape[1]:
                prediction.update(self._use_queue(z[: self.assigning]))
        return prediction

    @torch.no_grad()
    def _normalise_prototypes(self) -> None:
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))  # (K, D)

    @torch.no_grad()
    def _use_queue(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
        """Score the queue, once it is full, and then put the embeddings of this batch (A, B, D) into it."""
        if not self._queue_is_full:  # asked until it is: the answer makes the host wait for the device
            self._queue_is_full = bool(self.queue[:, -1].any())
        queue_scores = self.prototypes(self.queue)  # (A, L, K)
        if self.training:
            new = torch.stack([all_gather(crop) for crop in z])  # (A, world * B, D)
            self.queue.copy_(torch.cat([new, self.queue], dim=1)[:, : self.queue.shape[1]])
        return {"queue_scores": queue_scores} if self._queue_is_full else {}


class SwAVLoss(nn.Module):
    """Swapped prediction: cross-entropy between a crop's codes and what the other crops predict (Eq. 1, 2, 6).

    A network that cannot distinguish any pictures has the loss ln K, 6.2146 with 500 prototypes; training starts near
    it.

    Args:
        temperature: softness of the predictions.
        epsilon: softness of the codes.
        iterations: of Sinkhorn's algorithm.
        assigning: A, as in the network.

    Raises:
        UserError: a setting is not positive.
    """

    def __init__(
        self, temperature: float = 0.1, epsilon: float = 0.05, iterations: int = 3, assigning: int = 2
    ) -> None:
        super().__init__()
        settings = {"temperature": temperature, "epsilon": epsilon, "iterations": iterations, "assigning": assigning}
        for name, value in settings.items():
            if not value > 0:
                raise UserError(f"expected {name} of SwAV's loss above 0, found {value}; give a positive one")
        self.temperature, self.epsilon, self.iterations, self.assigning = temperature, epsilon, iterations, assigning

    def forward(self, prediction: Mapping[str, torch.Tensor], target: None = None) -> torch.Tensor:
        """The mean over assigning crops, over the crops that predict them, and over pictures.

        Args:
            prediction: output of `SwAV`: `scores` (V, B, K) and, with a full queue, `queue_scores` (A, L, K).
            target: not used.

        Raises:
            UserError: there are too few crops.
        """
        scores, queue = prediction["scores"], prediction.get("queue_scores")
        least = max(2, self.assigning)
        if len(scores) < least:
            raise UserError(f"expected at least {least} crops of a picture for SwAV, found {len(scores)}; add views")
        scores = at_least_float32(scores)
        log_p = (scores / self.temperature).log_softmax(dim=2)  # (V, B, K)
        losses = []
        for view in range(self.assigning):
            earlier = None if queue is None else queue[view]
            q = sinkhorn(scores[view], epsilon=self.epsilon, iterations=self.iterations, queue=earlier)  # (B, K)
            cross_entropy = -(q * log_p).sum(dim=2).mean(dim=1)  # (V,)
            losses.append(torch.cat([cross_entropy[:view], cross_entropy[view + 1 :]]).mean())
        return torch.stack(losses).mean()


@torch.no_grad()
def sinkhorn(
    scores: torch.Tensor, *, epsilon: float = 0.05, iterations: int = 3, queue: torch.Tensor | None = None
) -> torch.Tensor:
    """Soft assignments of pictures to the most similar prototypes, with all prototypes used evenly (Eq. 3 to 5).

    The algorithm of Sinkhorn and Knopp over the pictures of all processes, in the log domain, because
    exp(1 / 0.05) = 4.9e8 does not fit into float16.

    Args:
        scores: (B, K), those of this process.
        epsilon: softness; towards 0 every picture is assigned to one prototype.
        iterations: number of times that prototypes, then pictures, are normalised to equal weight.
        queue: (L, K), scores of earlier pictures, the same in all processes, that are assigned too.

    Returns:
        Codes (B, K), float32 (float64 for float64 scores): rows sum to 1, and over all pictures the columns sum to
        nearly the same value.
    """
    scores = at_least_float32(scores)
    everyone = all_gather(scores)  # (world * B, K)
    log_q = (everyone if queue is None else torch.cat([everyone, queue.to(scores)])) / epsilon  # (N, K)
    for _ in range(iterations):
        log_q = log_q.log_softmax(dim=0)  # prototypes of equal weight; 1 or 1 / K, it cancels in the next line
        log_q = log_q.log_softmax(dim=1)  # pictures of equal weight
    own = process_rank() * len(scores)
    return log_q[own : own + len(scores)].exp()


def chance_loss(prototypes: int) -> float:
    """Loss of a network that tells nothing apart: every prototype is as likely as any other, ln K."""
    return math.log(prototypes)


class FreezePrototypes:
    """Handler: freeze the prototypes at first, so that the features settle (Appendix A of SwAV).

    The authors of SwAV freeze for 313 iterations; the released code of Wolf et al. freezes for 313 epochs.

    Args:
        network: the bare `SwAV`, as it is before DDP or torch.compile wraps it.
        length: number of iterations or epochs; 0 freezes nothing.
        unit: "iterations" of the engine, or "epochs".
        plan: length of the training; it says what an epoch is, see `Plan.iterations_of`.

    Raises:
        UserError: the unit is another one, or the length is no whole number from 0.
    """

    def __init__(self, network: SwAV, length: int = 313, *, unit: str = "iterations", plan: Plan | None = None) -> None:
        if unit not in UNITS:
            raise UserError(f"expected prototypes to be frozen for {' or '.join(UNITS)}, found {unit!r}; give one")
        _check_length("freeze_prototypes", length)
        self.prototypes = network.prototypes
        self.length, self.unit = length, unit
        if plan is not None:
            self.length, self.unit = length if unit == "iterations" else plan.iterations_of(length), "iterations"
            if self.length >= plan.iterations and process_rank() == 0:
                logging.getLogger("lessismore_transforms").warning(
                    "the prototypes keep still for the whole training: freeze_prototypes is %d iterations of %d; take "
                    "fewer, or train longer",
                    self.length,
                    plan.iterations,
                )

    def attach(self, engine: Engine) -> None:
        """Follow an engine of MONAI, after each backward pass; attach it before handlers that clip gradients."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Remove the gradient while the prototypes are frozen, so that there is no step, decay or momentum."""
        now = engine.state.iteration if self.unit == "iterations" else engine.state.epoch  # both from 1
        if now <= self.length:
            self.prototypes.weight.grad = None


class StartQueue:
    """Handler: start to fill the queue after some epochs, when embeddings no longer change fast.

    Args:
        network: the bare `SwAV`, as it is before DDP or torch.compile wraps it.
        epochs: number of epochs without a queue.
        plan: length of the training; where it counts steps it says what an epoch is, see `Plan.iterations_of`.

    Raises:
        UserError: the number of epochs is no whole number from 0.
    """

    def __init__(self, network: SwAV, epochs: int = 15, *, plan: Plan | None = None) -> None:
        _check_length("queue_start_epoch", epochs)
        self.network, self.epochs = network, epochs
        self._iterations = None if plan is None else plan.iterations_of(epochs)

    def attach(self, engine: Engine) -> None:
        """Follow an engine, before each of its iterations."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Switch the queue of the network on once the epochs are over."""
        if self._iterations is None:
            self.network.queue_started = engine.state.epoch > self.epochs
        else:
            self.network.queue_started = engine.state.iteration > self._iterations


def _check_length(name: str, length: int) -> None:
    if not is_number(length, int) or length < 0:
        raise UserError(f"expected {name} to be a whole number from 0, found {length!r}; 0 does without")
