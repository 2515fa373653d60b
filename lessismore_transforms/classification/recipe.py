"""What the settings make of optimizer and loss: rates of encoder and linear layer, their schedule, weights of classes.

The paper has none of it: one rate, no schedule, plain cross-entropy (Wolf et al. 2024, Section 2.3). Neither have the
defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from lessismore_transforms.classification.augment import Augment, Changes
from lessismore_transforms.classification.examples import Examples, Split
from lessismore_transforms.classification.settings import ClassificationSettings
from lessismore_transforms.errors import UserError
from lessismore_transforms.options import is_number
from lessismore_transforms.training.plan import Plan
from lessismore_transforms.training.schedules import stepped, warmup_cosine

_STEPS = 0.6, 0.8  # of the training, after which the rate falls to a tenth


def parameters(settings: ClassificationSettings, network: nn.Module) -> Iterable[Any]:
    """The parameters of a classifier for its optimizer: all alike, or the linear layer and the encoder in groups.

    Args:
        settings: what all tasks share; an `encoder_learning_rate` makes two groups, the linear layer's first.
        network: perhaps wrapped for several processes.

    Raises:
        UserError: the rate is no positive number, or the encoder does not train.
    """
    rate = settings.encoder_learning_rate
    if rate is None:
        return network.parameters()
    if not is_number(rate, int, float) or rate <= 0:
        raise UserError(
            f"expected an encoder_learning_rate above 0, found {rate!r}; a tenth of learning_rate is usual, and "
            "--mode linear freezes the encoder"
        )
    if settings.mode == "linear":
        raise UserError(
            f"expected no encoder_learning_rate for mode linear, in which the encoder is frozen, found {rate!r}: leave "
            "it out"
        )
    of: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for name, parameter in network.named_parameters():
        of["backbone" in name.split(".")].append(parameter)
    return [{"params": of[False]}, {"params": of[True], "lr": rate}]


def make_schedule(
    settings: ClassificationSettings, plan: Plan, own: Callable[[int], float] | None = None
) -> Callable[[int], float] | None:
    """The factor of the learning rate, of the iteration counted from 0; None for 1 throughout.

    Args:
        settings: `learning_rate_schedule`, `warmup_epochs` and `step_epochs`.
        plan: how long the training is.
        own: a schedule that a configuration gives instead.

    Raises:
        UserError: the name is unknown, a number makes no sense, or there are two schedules.
    """
    name, warmup, steps = settings.learning_rate_schedule, settings.warmup_epochs, settings.step_epochs
    if own is not None:
        if name != "constant" or warmup:
            raise UserError(
                f"expected one schedule, found learning_rate_schedule {name} with {warmup} warmup_epochs beside the "
                "schedule of the configuration: leave out the one or the other"
            )
        return own
    if not is_number(warmup, int) or warmup < 0 or warmup >= settings.max_epochs:
        raise UserError(f"expected warmup_epochs from 0, fewer than max_epochs, found {warmup!r}; 5 are usual")
    if steps is not None and name != "step":
        raise UserError(f"expected step_epochs for learning_rate_schedule step only, found them for {name}: drop them")
    iterations = plan.iterations_of(warmup)
    rise: dict[str, Any] = {"warmup": iterations, "start": 1 / iterations if iterations else 0.0}
    if name == "cosine":
        return partial(warmup_cosine, total=plan.iterations, **rise)
    if name == "step":
        return partial(stepped, milestones=_milestones(settings, plan), **rise)
    return partial(stepped, milestones=(), **rise) if iterations else None


def class_weights(settings: ClassificationSettings, examples: Examples) -> torch.Tensor | None:
    """The weight (C,) of each class in the loss, on the device; None where all count alike.

    `balanced` is N / (C N_c) for N_c of N training pictures, so that the weights of all pictures have the mean 1
    (scikit-learn's rule).

    Raises:
        UserError: `class_weights` is neither none, balanced nor a positive number for each class.
    """
    given, classes = settings.class_weights, len(examples.classes)
    if given is None:
        return None
    if given == "balanced":
        counts = np.bincount(Split(examples, "train").labels, minlength=classes)
        if not counts.all():
            missing = examples.classes[int(counts.argmin())]
            raise UserError(
                f"expected training pictures of each class for balanced class_weights, found none of "
                f"{missing}: add some"
            )
        values: Sequence[float] = (counts.sum() / (classes * counts)).tolist()
    elif not isinstance(given, (list, tuple)) or len(given) != classes or not all(map(_is_positive, given)):
        raise UserError(
            f"expected class_weights to be balanced, or a list of a number above 0 for each of {classes} classes "
            f"({', '.join(examples.classes)}), found {given!r}; leave them out to count all alike"
        )
    else:
        values = given
    return torch.tensor(values, dtype=torch.float32, device=settings.device)


def checked_loss(settings: ClassificationSettings, loss: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The loss as the trainer calls it: of logits in float32 where settings changed the plain cross-entropy.

    Raises:
        UserError: a configuration gives a loss of its own, which does not do what the settings ask for.
    """
    smoothing = settings.label_smoothing
    if not is_number(smoothing, int, float) or not 0 <= smoothing < 1:
        raise UserError(f"expected a label_smoothing from 0 to below 1, found {smoothing!r}; 0.1 is usual")
    wanted = {"label_smoothing": bool(smoothing), "class_weights": settings.class_weights is not None}
    has = {
        "label_smoothing": getattr(loss, "label_smoothing", None) == smoothing,
        "class_weights": getattr(loss, "weight", None) is not None,
    }
    if ignored := [name for name in wanted if wanted[name] and not has[name]]:
        raise UserError(
            f"expected a loss with {ignored[0]}, found {type(loss).__name__} in the configuration, which takes none: "
            f"leave out --{ignored[0]} or that loss"
        )
    if not (any(wanted.values()) or settings.mixup or settings.cutmix):
        return loss
    return lambda logits, labels: loss(logits.float(), labels)


def make_augment(settings: ClassificationSettings, dataset: Split, classes: int) -> Augment | None:
    """What is done with training pictures on the device besides mirroring; None for nothing.

    Raises:
        UserError: a setting is out of its range.
    """
    changes = Changes(**{name: getattr(settings, name) for name in Changes.__dataclass_fields__})
    if not changes.any:
        return None
    prepared: Mapping[str, Any] = getattr(dataset.transform, "__dict__", {})
    return Augment(
        changes,
        mean=prepared.get("mean", [0.0]),
        std=prepared.get("std", [1.0]),
        classes=classes,
        seed=settings.run_seed,
        transpose=settings.transpose,
    )


def _is_positive(value: Any) -> bool:
    return is_number(value, int, float) and value > 0


def _milestones(settings: ClassificationSettings, plan: Plan) -> tuple[int, ...]:
    """The iterations from which on the rate is a tenth of what it was, in order."""
    epochs = settings.step_epochs
    if epochs is None:
        return tuple(round(share * plan.iterations) for share in _STEPS)
    known = isinstance(epochs, (list, tuple)) and all(
        is_number(epoch, int) and 0 < epoch < settings.max_epochs for epoch in epochs
    )
    if not known or not epochs or list(epochs) != sorted({*epochs}):
        raise UserError(
            f"expected step_epochs to be a rising list of epochs below max_epochs {settings.max_epochs}, found "
            f"{epochs!r}; leave it out for 60 and 80 % of the training"
        )
    return tuple(plan.iterations_of(epoch) for epoch in epochs)
