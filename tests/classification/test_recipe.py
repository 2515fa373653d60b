"""What the settings make of optimizer and loss: by hand, by scikit-learn, and refused where it makes no sense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from lessismore_transforms.classification.augment import Changes
from lessismore_transforms.classification.examples import Example, Examples, Split
from lessismore_transforms.classification.network import Classifier
from lessismore_transforms.classification.preprocessing import Prepare
from lessismore_transforms.classification.recipe import (
    checked_loss,
    class_weights,
    make_augment,
    make_schedule,
    parameters,
)
from lessismore_transforms.classification.settings import OFF, ClassificationSettings
from lessismore_transforms.training.plan import Plan

PLAN = Plan.of(40, batch_size=4, max_epochs=10, drop_last=False)  # 10 iterations in each of 10 epochs


def settings(**changes: Any) -> ClassificationSettings:
    return ClassificationSettings("data", **({"max_epochs": 10, "device": "cpu"} | changes))


def examples(labels: list[int], classes: int = 3) -> Examples:
    listed = tuple(Example(str(n), label, "train") for n, label in enumerate(labels))
    listed += (Example("v", 0, "val"),)
    return Examples("task", tuple("abcdef"[:classes]), listed, [np.zeros((4, 4), np.uint8)] * len(listed), 1)


def network() -> Classifier:
    return Classifier(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)), 5, 2)


def test_the_encoder_has_its_own_rate_where_one_is_given() -> None:
    made = network()
    plain = torch.optim.Adam(parameters(settings(), made), lr=0.1)
    assert len(plain.param_groups) == 1
    assert [p is q for p, q in zip(plain.param_groups[0]["params"], made.parameters(), strict=True)] == [True] * 6
    for wrapped in (made, nn.ModuleDict({"module": made})):  # as several processes wrap it
        optimizer = torch.optim.Adam(parameters(settings(encoder_learning_rate=1e-3), wrapped), lr=0.1)
        head, encoder = optimizer.param_groups
        assert (head["lr"], encoder["lr"]) == (0.1, 1e-3)
        assert {id(p) for p in head["params"]} == {id(p) for p in made.classifier.parameters()}
        assert {id(p) for p in encoder["params"]} == {id(p) for p in made.backbone.parameters()}
    with pytest.raises(ValueError, match="expected an encoder_learning_rate above 0, found 0; a tenth of"):
        parameters(settings(encoder_learning_rate=0), made)
    linear = settings(mode="linear", linear_recipe="adam", encoder_learning_rate=1e-3)
    with pytest.raises(
        ValueError, match=r"no encoder_learning_rate for mode linear, in which .* found 0.001: leave it"
    ):
        parameters(linear, made)


def factors(*points: int, **changes: Any) -> list[float]:
    schedule = make_schedule(settings(**changes), PLAN)
    assert schedule is not None
    return [schedule(point) for point in points]


def test_schedules_value_by_value() -> None:
    assert make_schedule(settings(), PLAN) is None
    assert factors(0, 10, 20, 99, warmup_epochs=2) == pytest.approx([0.05, 0.525, 1, 1])
    cosine = {"learning_rate_schedule": "cosine"}
    assert factors(0, 50, 100, 200, **cosine) == pytest.approx([1, 0.5, 0, 0])
    assert factors(0, 10, 20, 60, 100, warmup_epochs=2, **cosine) == pytest.approx([0.05, 0.525, 1, 0.5, 0])
    step = {"learning_rate_schedule": "step"}
    assert factors(0, 59, 60, 79, 80, 99, **step) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert factors(29, 30, 70, step_epochs=[3, 7], **step) == pytest.approx([1, 0.1, 0.01])
    assert factors(0, 5, 10, step_epochs=[3], warmup_epochs=1, **step) == pytest.approx([0.1, 0.55, 1])


def test_schedules_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match=r"out of constant, cosine, step, found 'linear'; constant is the paper's"):
        settings(learning_rate_schedule="linear")
    with pytest.raises(ValueError, match=r"warmup_epochs from 0, fewer than max_epochs, found 10; 5 are usual"):
        make_schedule(settings(warmup_epochs=10), PLAN)
    with pytest.raises(ValueError, match=r"for learning_rate_schedule step only, found them for cosine: drop them"):
        make_schedule(settings(learning_rate_schedule="cosine", step_epochs=[3]), PLAN)
    for steps in ([], [3, 3], [5, 2], [0], [10], 4, [2.5]):
        with pytest.raises(ValueError, match=r"a rising list of epochs below max_epochs 10, found"):
            make_schedule(settings(learning_rate_schedule="step", step_epochs=steps), PLAN)
    own = float
    assert make_schedule(settings(), PLAN, own) is own
    with pytest.raises(ValueError, match="expected one schedule, found learning_rate_schedule cosine with 0 warmup_ep"):
        make_schedule(settings(learning_rate_schedule="cosine"), PLAN, own)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = [0] * 6 + [1] * 3 + [2]
    pictures = examples(labels)
    found = class_weights(settings(class_weights="balanced"), pictures)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[labels].mean() == pytest.approx(1)
    assert class_weights(settings(), pictures) is None
    assert class_weights(settings(class_weights=[1, 2, 0.5]), pictures).tolist() == [1, 2, 0.5]
    for given in ("equal", [1, 2], [1, 2, 0], [1, 2, "3"], 2.0):
        with pytest.raises(ValueError, match=r"a number above 0 for each of 3 classes \(a, b, c\), found"):
            class_weights(settings(class_weights=given), pictures)
    with pytest.raises(ValueError, match=r"each class for balanced class_weights, found none of c: add some"):
        class_weights(settings(class_weights="balanced"), examples([0, 1]))


def test_the_loss_is_as_it_is_given_unless_settings_change_it() -> None:
    plain = nn.CrossEntropyLoss()
    assert checked_loss(settings(), plain) is plain
    logits, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    weight = torch.tensor([1.0, 2.0, 3.0])
    changed = nn.CrossEntropyLoss(weight=weight, label_smoothing=0.2)
    called = checked_loss(settings(label_smoothing=0.2, class_weights=[1, 2, 3]), changed)
    log = logits.log_softmax(1)
    picked, spread = -log[torch.arange(6), labels] * weight[labels], -(log * weight).sum(1) / 3
    expected = ((0.8 * picked + 0.2 * spread).sum() / weight[labels].sum()).item()
    assert called(logits, labels).item() == pytest.approx(expected, rel=1e-6)
    assert called(logits.bfloat16(), labels).dtype is torch.float32
    for asked, name in (
        ({"label_smoothing": 0.2}, "label_smoothing"),
        ({"class_weights": "balanced"}, "class_weights"),
    ):
        with pytest.raises(
            ValueError, match=f"expected a loss with {name}, found CrossEntropyLoss .* leave out --{name}"
        ):
            checked_loss(settings(**asked), plain)
    with pytest.raises(ValueError, match=r"expected a label_smoothing from 0 to below 1, found 1; 0.1 is usual"):
        checked_loss(settings(label_smoothing=1), plain)


def test_pictures_are_changed_as_the_settings_say() -> None:
    split = Split(examples([0, 1, 2]), "train", Prepare(4, [0.3], [0.2]))
    assert make_augment(settings(), split, 3) is None
    made = make_augment(settings(mixup=0.2, crop=0.5, seed=2, run_index=1, transpose=True), split, 3)
    assert made is not None
    assert made.changes == Changes(mixup=0.2, crop=0.5)
    assert (made.mean, made.std, made.classes, made.seed, made.dimension) == ([0.3], [0.2], 3, 2001, -1)


def test_what_is_off_is_refused_for_a_regression_where_it_is_on() -> None:
    on = {"learning_rate_schedule": "cosine", "class_weights": "balanced", "step_epochs": [1], "crop": 0.5}
    assert {"encoder_learning_rate", "warmup_epochs", "label_smoothing", "mixup", *on} <= OFF.keys()
    assert {name: getattr(settings(), name) for name in OFF} == OFF
    ClassificationSettings("data", mode="linear")
    for name in OFF:
        value = on.get(name, 1)
        with pytest.raises(ValueError, match=f"expected no {name} for mode linear, which fits a logistic regression"):
            ClassificationSettings("data", mode="linear", **{name: value})
        settings(mode="linear", linear_recipe="adam", **{name: value})
