"""The epoch whose network is best on the validation split."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from torch import nn

from lessismore_transforms.errors import UserError
from lessismore_transforms.training.stopping import stopped

CRITERIA = {"accuracy": 1.0, "auc": 1.0, "loss": -1.0}  # and whether more is better


class KeepBest:
    """Validate after every epoch and keep the weights of the best one, the first of equal ones.

    The released code judges by accuracy. Attach it behind what may stop the run and before what logs and saves: the
    weights are part of its state, so that a resumed run knows them.

    Args:
        network: without wrappers.
        validator: an evaluator with `evaluation.Predict` attached.
        by: accuracy, auc or loss.

    Attributes:
        epoch: the best one, 0 before the first.
        score: its score; more is better.
        told: what tells how its network came about, such as a penalty; empty where the epoch tells it.

    Raises:
        UserError: the criterion is unknown.
    """

    def __init__(self, network: nn.Module, validator: Evaluator, by: str = "accuracy") -> None:
        if by not in CRITERIA:
            raise UserError(
                f"expected best_by out of {', '.join(CRITERIA)}, found {by!r}; accuracy is the released one"
            )
        self.network, self.validator, self.by = network, validator, by
        self.epoch, self.score = 0, -math.inf
        self.told: dict[str, Any] = {}
        self._weights: dict[str, torch.Tensor] = {}

    def attach(self, engine: Engine) -> None:
        """Follow a trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Judge the epoch that ended, unless the training broke down.

        Raises:
            UserError: the score is undefined.
        """
        if stopped(engine):
            return
        self.validator.run(engine.state.epoch)
        scores = self.validator.state.metrics
        engine.state.probe = {f"val_{name}": scores[name] for name in CRITERIA}
        self.judge(engine.state.epoch, scores)

    def judge(self, epoch: int, scores: Mapping[str, float], told: Mapping[str, Any] | None = None) -> None:
        """Keep the weights that the network has now if it is better than at every epoch before.

        Args:
            epoch: counted from 1.
            scores: of the validation split: accuracy, auc and loss.
            told: plain values that tell how the network of this epoch came about, instead of the epoch.

        Raises:
            UserError: the score is undefined.
        """
        score = CRITERIA[self.by] * scores[self.by]
        if math.isnan(score):
            raise UserError(
                f"expected a validation split by which {self.by} is defined, found one that lacks a class: give it "
                "pictures of all classes, or judge by accuracy with --best_by accuracy"
            )
        if score > self.score or not self.epoch:
            self.epoch, self.score, self.told = epoch, score, dict(told or {})
            self._weights = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}

    def restore(self) -> None:
        """Put the weights of the best epoch into the network."""
        self.network.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """The best epoch, its score and its weights."""
        kept = {"by": self.by, "epoch": self.epoch, "score": self.score, "told": self.told}
        return {**kept, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there.

        Raises:
            UserError: the run judged by something else.
        """
        if state["by"] != self.by:
            raise UserError(f"epochs were judged by {state['by']}, not {self.by}")
        self.epoch, self.score, self._weights = state["epoch"], state["score"], dict(state["weights"])
        self.told = dict(state["told"])
