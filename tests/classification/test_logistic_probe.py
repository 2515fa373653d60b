"""The regression of the mode linear beside scikit-learn's own pipeline on the same features."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import in_processes
from ignite.engine import Engine, Events
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from lessismore_transforms.classification.best_epoch import CRITERIA, KeepBest
from lessismore_transforms.classification.examples import Example, Examples, Split
from lessismore_transforms.classification.logistic_probe import (
    PENALTIES,
    LogisticProbe,
    fill,
    folded,
    standardisation,
)
from lessismore_transforms.classification.metrics import score
from lessismore_transforms.classification.network import Classifier
from lessismore_transforms.classification.settings import ClassificationSettings

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = {"train": 60, "val": 31, "test": 40}


class Pixels(nn.Module):
    """An encoder whose features are the grey values of the picture."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0].flatten(1)  # (B, H * W)


def examples(classes: int, *, noise: float = 60.0, seed: int = 0) -> Examples:
    """Pictures of 3 x 2 pixels, one of which is always the same, that tell their class more or less."""
    random = np.random.default_rng(seed)
    centres = random.uniform(80, 180, (classes, 6))
    listed = [Example(f"{s}/{k}", (k * 7) % classes, s) for s, count in SIZES.items() for k in range(count)]
    values = [np.clip(random.normal(centres[each.label], noise), 0, 255) for each in listed]
    for each in values:
        each[4] = 77
    images = [each.astype(np.uint8).reshape(3, 2) for each in values]
    return Examples("task", tuple("abc"[:classes]), tuple(listed), images, 1)


def scaled(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "image": item["image"].float() / 255}


def fitted(data: Examples, by: str = "accuracy", stop_after: int = len(PENALTIES)) -> tuple[Any, KeepBest, list[Any]]:
    """A probe whose network has the weights of the best penalty, what kept it, and what each step left."""
    splits = [Split(data, name, scaled) for name in ("train", "val")]
    network = Classifier(Pixels(), 6, len(data.classes))
    best = KeepBest(network, SimpleNamespace(), by)
    probe = LogisticProbe(
        network, *splits, best, lambda images, encoder: encoder(images), batch_size=8, workers=0, device="cpu"
    )
    engine, lines = Engine(probe), []
    probe.attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: lines.append(engine.state.probe))
    engine.run(range(stop_after), max_epochs=stop_after, epoch_length=1)
    best.restore()
    return probe, best, lines


def arrays(data: Examples, name: str) -> tuple[np.ndarray, np.ndarray]:
    split = Split(data, name)
    return np.stack([image.ravel() for image in split.images]).astype(np.float32) / np.float32(255), split.labels


def pipeline(data: Examples, penalty: float) -> Any:
    features, labels = arrays(data, "train")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=10000))
    return model.fit(features.astype(np.float64), labels)


@pytest.mark.parametrize("by", CRITERIA)
@pytest.mark.parametrize("classes", [2, 3])
def test_the_layer_is_that_of_scikit_learn_on_the_features_with_the_best_penalty(classes: int, by: str) -> None:
    data = examples(classes)
    probe, best, lines = fitted(data, by)
    features, labels = arrays(data, "val")
    found = []
    for penalty, line in zip(PENALTIES, lines, strict=True):
        scores = score(labels, pipeline(data, penalty).predict_proba(features))
        assert line["penalty"] == penalty
        expected = {"val_accuracy": scores["accuracy"], "val_auc": scores["auc"], "val_loss": scores["nll"]}
        assert {name: line[name] for name in expected} == pytest.approx(expected, abs=1e-3)
        found.append({"accuracy": scores["accuracy"], "auc": scores["auc"], "loss": -scores["nll"]}[by])
    chosen = PENALTIES[int(np.argmax(found))]  # the first of equal ones, which is the strongest
    assert best.told == {"penalty": chosen, "penalties": [*PENALTIES], "converged": True}
    tested, _ = arrays(data, "test")
    with torch.no_grad():
        probabilities = probe.network(torch.from_numpy(tested).reshape(-1, 1, 3, 2)).softmax(dim=1).numpy()
    np.testing.assert_allclose(probabilities, pipeline(data, chosen).predict_proba(tested), atol=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_standardisation_is_folded_without_loss(classes: int) -> None:
    data = examples(classes)
    features, labels = (each.astype(np.float64) for each in arrays(data, "train"))
    features[:, :4] = 1000 + features[:, :4] * [1e-2, 1, 10, 1e3]
    mean, scale = standardisation(features)
    assert scale[4] == np.inf  # the same in all pictures
    model = LogisticRegression().fit((features - mean) / scale, labels)
    weights, biases = folded(model.coef_, model.intercept_, mean, scale)
    assert weights.shape == (classes, 6)
    assert not weights[:, 4].any()
    logits = features @ weights.T + biases
    expected = model.predict_proba((features - mean) / scale)
    np.testing.assert_allclose(torch.from_numpy(logits).softmax(dim=1), expected, atol=1e-9)
    assert (logits.argmax(axis=1) == model.predict((features - mean) / scale)).all()
    layer = nn.Linear(6, classes)
    fill(layer, *folded(model.coef_, model.intercept_, mean, scale))
    assert layer.weight.dtype == torch.float32
    np.testing.assert_array_equal(layer.bias.detach().numpy(), biases.astype(np.float32))


def test_a_feature_that_varies_by_rounding_only_is_constant() -> None:
    values = np.array([[1.0, 0.0, 1.0], [1.0 + 1e-6, 0.0, 1.001], [1.0 - 1e-6, 0.0, 0.999]])
    _, scale = standardisation(values)
    assert scale.tolist()[:2] == [np.inf, np.inf]
    assert scale[2] == pytest.approx(np.std([1, 1.001, 0.999]))


def test_of_equally_good_penalties_the_strongest_is_taken() -> None:
    data = examples(2, noise=1.0)
    _, best, lines = fitted(data)
    assert {line["val_accuracy"] for line in lines} == {1.0}
    assert best.told["penalty"] == PENALTIES[0] == max(PENALTIES) == 1e4
    assert min(PENALTIES) == pytest.approx(1e-4)


def test_test_pictures_have_no_part_in_it() -> None:
    one = examples(2)
    other = Examples("task", one.classes, one.examples, [image.copy() for image in one.images], 1)
    for example, image in zip(other.examples, other.images, strict=True):
        if example.split == "test":
            image[:] = 255 - image
    first, second = (fitted(data)[0].network.state_dict() for data in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


def in_two() -> dict[str, torch.Tensor]:
    network = fitted(examples(3))[0].network
    return dict(network.state_dict())


def test_two_processes_find_the_same_layer_as_one() -> None:
    alone = in_two()
    for found in in_processes(in_two, 2):
        for name, value in alone.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_a_sweep_that_goes_on_ends_alike() -> None:
    data = examples(3)
    whole, best, _ = fitted(data)
    part, before, _ = fitted(data, stop_after=6)
    again, after, _ = fitted(data, stop_after=1)
    after.load_state_dict(before.state_dict())
    again.load_state_dict(part.state_dict())
    engine = Engine(again)
    again.attach(engine)
    engine.load_state_dict({"iteration": 6, "max_epochs": len(PENALTIES), "epoch_length": 1})
    engine.run(PENALTIES)
    after.restore()
    assert after.told == best.told
    for name, value in whole.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value)


def test_features_that_are_not_finite_are_refused() -> None:
    data = examples(2)
    data.images[3][0, 0] = 255

    class Broken(Pixels):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(torch.where(images > 0.999, torch.nan, images))

    network = Classifier(Broken(), 6, 2)
    splits = [Split(data, name, scaled) for name in ("train", "val")]
    probe = LogisticProbe(
        network, *splits, KeepBest(network, SimpleNamespace()), lambda images, encoder: encoder(images),
        batch_size=8, workers=0, device="cpu",
    )  # fmt: skip
    engine = Engine(probe)
    probe.attach(engine)
    with pytest.raises(ValueError, match=r"expected finite features, found others for \d+ of 60 pictures of train: "):
        engine.run(PENALTIES, max_epochs=1)


def test_a_regression_takes_no_settings_of_steps() -> None:
    settings = ClassificationSettings("data", mode="linear", pretrained="a.pt", precision="auto")
    assert settings.regression
    assert settings.computed_in == "fp32"
    by_steps = ClassificationSettings("data", mode="linear", linear_recipe="adam", pretrained="a.pt", max_epochs=3)
    assert not by_steps.regression
    assert by_steps.computed_in == "auto"
    for name, value in {"max_epochs": 3, "learning_rate": 0.1, "flip": 0.0, "frozen_epochs": 2}.items():
        words = (
            f"expected no {name} for mode linear, which fits a logistic regression and takes no steps, found {value}"
        )
        with pytest.raises(ValueError, match="^" + words):
            ClassificationSettings("data", mode="linear", **{name: value})
        assert name in settings.unused
        ClassificationSettings("data", mode="finetune", **{name: value})
    with pytest.raises(ValueError, match="expected a linear_recipe out of logistic, adam, found 'sgd'; logistic is us"):
        ClassificationSettings("data", linear_recipe="sgd")
