"""What of a classifier trains, and when: everything, its linear layer alone, or the one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from lessismore_transforms.classification.network import Classifier
from lessismore_transforms.errors import UserError

MODES = ("finetune", "linear", "scratch")
_RELEASED_DROP, _RELEASED_FACTOR = 11, 0.2


def encoder_weights(mode: str, pretrained: str | Path | None) -> str:
    """What to build the encoder with: a file of weights, or `random` for the mode scratch.

    Raises:
        UserError: the mode is unknown, or does not go with whether there are weights.
    """
    if mode not in MODES:
        raise UserError(f"expected a mode out of {', '.join(MODES)}, found {mode!r}; finetune is usual")
    if mode == "scratch":
        if pretrained:
            raise UserError(f"expected no weights for mode scratch, found {pretrained}: leave out pretrained or mode")
        return "random"
    if not pretrained:
        raise UserError(
            f"expected pre-trained weights for mode {mode}, found none: give --pretrained FILE, or --mode scratch"
        )
    return str(pretrained)


def frozen_epochs(mode: str, max_epochs: int, epochs: int | None = None) -> int:
    """For how many epochs the encoder is frozen.

    Args:
        mode: linear freezes it for good; finetune for ten epochs (Section 2.3); scratch not at all, as nothing can be
            learned from random features that is worth keeping.
        max_epochs: of the training.
        epochs: taken instead, but for the mode linear.

    Raises:
        UserError: the number is negative, or nothing but the linear layer would ever be trained.
    """
    if epochs is not None and (not isinstance(epochs, int) or epochs < 0):
        raise UserError(f"expected frozen_epochs of 0 or more, found {epochs!r}; 10 is the paper's")
    if mode == "linear":
        return max_epochs
    frozen = {"finetune": 10, "scratch": 0}[mode] if epochs is None else epochs
    if frozen >= max_epochs:
        raise UserError(
            f"expected more epochs than the {frozen} in which the encoder is frozen, found max_epochs {max_epochs}: "
            f"give --frozen_epochs 0 to {max_epochs - 1}, or --mode linear to train the linear layer alone"
        )
    return frozen


def released_factor(iteration: int, *, every: int) -> float:
    """What the released code's callback makes of the learning rate: 1, from its twelfth epoch on a fifth.

    Its optimizer held all parameters in one group, so that the rate meant for the encoder alone, a tenth that doubles
    in the epoch after unfreezing, was set for the classifier too and stayed: 1e-4, then 2e-5 for all.

    Args:
        iteration: counted from 0.
        every: iterations of an epoch.
    """
    return 1.0 if iteration // every < _RELEASED_DROP else _RELEASED_FACTOR


class FreezeEncoder:
    """Freeze the encoder of a classifier for the first epochs of a training.

    Args:
        network: without wrappers.
        epochs: for which it is frozen.
        batch_norm: whether its batch norms are frozen too; in the released code they were not.
    """

    def __init__(self, network: Classifier, epochs: int, *, batch_norm: bool = True) -> None:
        self.network, self.epochs, self.batch_norm = network, epochs, batch_norm

    def attach(self, engine: Engine) -> None:
        """Follow an engine."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Freeze or not for the epoch that begins."""
        self.network.freeze(engine.state.epoch <= self.epochs, batch_norm=self.batch_norm)
