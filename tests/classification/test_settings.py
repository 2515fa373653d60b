"""The settings of a classifier, what follows from them, and those of every bundle."""

from __future__ import annotations

import json
from dataclasses import MISSING
from typing import Any

import pytest
from helpers import ROOT, bundle_scripts, bundles

from lessismore_transforms.classification.evaluation import SETTLED, reported
from lessismore_transforms.classification.finished_runs import FREE
from lessismore_transforms.classification.settings import (
    ClassificationSettings,
    encoder_weights,
    frozen_epochs,
    run_seed,
)
from lessismore_transforms.errors import UserError
from lessismore_transforms.options import names, options_of
from lessismore_transforms.pretraining.settings import PretrainingSettings


@pytest.mark.parametrize(
    ("mode", "pretrained", "sentence"),
    [
        ("finetune", None, "expected pre-trained weights for mode finetune, found none: give --pretrained FILE, or"),
        ("linear", "", "expected pre-trained weights for mode linear, found none"),
        ("scratch", "a.pt", "expected no weights for mode scratch, found a.pt: leave out pretrained or mode"),
        ("fine", None, "expected a mode out of finetune, linear, scratch, found 'fine'; finetune is usual"),
    ],
)
def test_a_mode_that_does_not_go_with_the_weights(mode: str, pretrained: str | None, sentence: str) -> None:
    with pytest.raises(ValueError, match="^" + sentence):
        encoder_weights(mode, pretrained)


def test_weights_and_epochs_of_each_mode() -> None:
    assert [encoder_weights(mode, "a.pt") for mode in ("finetune", "linear")] == ["a.pt", "a.pt"]
    assert encoder_weights("scratch", None) == "random"
    assert [frozen_epochs(mode, 70) for mode in ("finetune", "linear", "scratch")] == [10, 70, 0]
    assert [frozen_epochs(mode, 70, 3) for mode in ("finetune", "linear", "scratch")] == [3, 70, 3]
    with pytest.raises(ValueError, match="expected frozen_epochs of 0 or more, found -1"):
        frozen_epochs("finetune", 70, -1)
    words = r"more epochs than the 10 in which the encoder is frozen, found max_epochs 10: give --frozen_epochs 0 to 9"
    with pytest.raises(ValueError, match=words):
        frozen_epochs("finetune", 10)
    assert frozen_epochs("finetune", 10, 9) == 9
    with pytest.raises(ValueError, match="more epochs than the 5 in which"):
        frozen_epochs("scratch", 2, 5)


def test_seeds_of_runs() -> None:
    assert [run_seed(2, index) for index in (0, 7)] == [2000, 2007]
    for seed, index in ((-1, 0), (0, -1), (0, 1000)):
        with pytest.raises(ValueError, match="expected a seed of 0 or more and a run_index from 0 to 999"):
            run_seed(seed, index)


def test_what_follows_from_settings() -> None:
    settings = ClassificationSettings("data", output_dir="out", run_index=3, resume="true", pretrained="a.pt")
    assert settings.run_dir.as_posix() == "out/run_03"
    assert (settings.run_seed, settings.weights, settings.frozen, settings.resume) == (3, "a.pt", 10, True)
    with pytest.raises(ValueError, match="expected true or false, found 'yes'"):
        ClassificationSettings("data", transpose="yes")


@pytest.mark.parametrize("rate", [0, -1e-4, float("nan"), float("inf"), "1e-4", True, None])
def test_a_learning_rate_by_which_nothing_is_learnt(rate: Any) -> None:
    with pytest.raises(UserError, match=f"^expected a learning_rate above 0, found {rate!r}; 0.0001 is the paper's$"):
        ClassificationSettings("data", pretrained="a.pt", learning_rate=rate)
    assert ClassificationSettings("data", pretrained="a.pt", learning_rate=1).learning_rate == 1


def test_paths_are_not_reported_and_what_was_resolved_is() -> None:
    settings = ClassificationSettings("data", pretrained="a.pt", pretraining="OUT", device="cpu", mean=(0.5,))
    found = reported(settings, precision="fp32", frozen_epochs=10)
    assert {"dataset_dir", "output_dir", "pretrained", "pretraining", "resume"}.isdisjoint(found)
    expected = {"mean": [0.5], "frozen_epochs": 10, "precision": "fp32", "device": "cpu", "method": None}
    assert expected.items() <= found.items()


def test_what_an_evaluation_does_not_choose_again_and_in_what_runs_may_differ() -> None:
    assert {"mode", "pretrained", "learning_rate", "schedule", "image_size", "best_by", "log_interval"} <= set(SETTLED)
    assert {"positive", "device", "workers", "leakage", "seed", "run_index", "batch_size"}.isdisjoint(SETTLED)
    assert {"seed", "fold", "output_dir", "workers", "bootstrap", "reduction"} <= FREE
    assert {"batch_size", "precision", "flip", "size"}.isdisjoint(FREE)


def settings_of(bundle: str) -> type:
    """The dataclass of a bundle's training."""
    (kind,) = [line for line in train_json(bundle).values() if "read_settings" in str(line)]
    name = kind.partition("('")[2].removesuffix("')")
    if name.startswith("scripts."):
        found: type = getattr(bundle_scripts(bundle), name.partition(".")[2])
        return found
    return ClassificationSettings


def train_json(bundle: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "bundles" / bundle / "configs" / "train.json").read_text())
    return content


@pytest.mark.parametrize("bundle", [*bundles("pretraining"), *bundles("classification")])
def test_the_configuration_has_each_option_with_its_default(bundle: str) -> None:
    content, kind = train_json(bundle), settings_of(bundle)
    assert issubclass(kind, (PretrainingSettings, ClassificationSettings))
    for option in options_of(kind):
        value = content[option.name]
        if option.default is MISSING or (isinstance(value, str) and value[:1] in ("$", "@")):
            continue  # a place of the bundle's own, or computed
        assert value == (list(option.default) if isinstance(option.default, tuple) else option.default), option.name
    top = list(content)
    settings = top[top.index("bundle_root") + 1 : top.index("settings")]
    assert set(settings) - {"schedule"} == set(names(kind))


@pytest.mark.parametrize("bundle", bundles("classification"))
def test_options_in_which_runs_may_differ_are_known_to_who_compares_runs(bundle: str) -> None:
    assert set(names(settings_of(bundle), "run", "path", "speed", "report", "label")) <= FREE
