"""What of a classifier trains, and when: everything, its linear layer alone, or the one after the other."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events

from lessismore_transforms.classification.network import Classifier

_RELEASED_DROP, _RELEASED_FACTOR = 11, 0.2


def released_factor(iteration: int, *, every: int) -> float:
    """What the released code's callback makes of the learning rate: 1, from its twelfth epoch on a fifth.

    Its optimizer held all parameters in one group, so that the rate meant for the encoder alone, a tenth that doubles
    in the epoch after unfreezing, was set for the classifier too and stayed: 1e-4, then 2e-5 for all.

    Args:
        iteration: counted from 0.
        every: iterations of an epoch.
    """
    return 1.0 if iteration // every < _RELEASED_DROP else _RELEASED_FACTOR


def halved_factor(iteration: int, *, every: int, first: int = 26, epochs: int = 25) -> float:
    """The factor of the learning rate in SmallDataSSL's released linear.py: halved after each 25 steps of its schedule.

    The schedule takes a step at the end of epochs from the index 26 on only, so that the first halving is in epoch 51.

    Args:
        iteration: counted from 0.
        every: iterations of an epoch.
        first: index of the first epoch, from 0, at whose end the schedule takes a step.
        epochs: steps between two halvings.
    """
    steps = max(0, iteration // every - first)
    return float(0.5 ** (steps // epochs))


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
